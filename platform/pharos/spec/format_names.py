"""The forms of rows that `data.format` may name: what each is called here, and what users of other tools call it.

How a form is read lives in the data room; a test there holds that it reads every form of this list.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

AUTO = "auto"

FORMAT_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "messages": ("openai", "chat", "conversational"),
        "sharegpt": ("conversations", "baichuan", "baichuan2", "fastchat", "vicuna"),
        "alpaca": ("instruction", "instruction/output", "instruction/input/output"),
        "paddlenlp": ("src/tgt", "src_tgt"),
        "adgen": ("advertisegen", "content/summary", "content_summary"),
        "prompt/completion": ("prompt_completion", "prompt-completion"),
        "question/answer": ("question_answer", "qa", "gsm8k"),
        "input/output": ("input_output", "instruct"),
        "text": ("pretrain", "pt", "text_completion", "language_modeling"),
        "preference": ("chosen/rejected", "chosen_rejected", "ranking", "dpo", "orpo", "simpo", "rm"),
        "paddlenlp-preference": ("paddlenlp_preference", "src/tgt/response/sort"),
        "kto": ("label", "kto_tag", "unpaired_preference"),
        "tagged": ("conll", "ner", "token_classification"),
        "bio": ("iob", "iob2"),
        "bmes": ("bmeso",),
        "bioes": ("iobes",),
        "bilou": ("bioul",),
    }
)


def canonical_format(name: str) -> str | None:
    """What a form is called here, whichever of its names is given and however it is capitalised; none for no form."""
    name = name.lower()
    if name in FORMAT_NAMES:
        return name
    return next((own for own, others in FORMAT_NAMES.items() if name in others), None)


def all_format_names() -> list[str]:
    """Every word that data.format understands, forms' own names first."""
    return [AUTO, *FORMAT_NAMES, *(name for others in FORMAT_NAMES.values() for name in others)]
