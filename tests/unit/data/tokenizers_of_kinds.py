"""Three small tokenizers of the kinds that bases have, made in the test: none is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]",
    "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
)  # fmt: skip
RESERVED_106, RESERVED_107 = 195, 196
"""The ids of Baichuan2's markers of user and assistant, as its fine-tuning script has them."""
TEXT = [
    "user assistant system Where is the lighthouse? It stands   on the cliff, north of the harbour.\n",
    "def light(ship):\n    return ship.sees(lamp)  # \t{'<|im_end|>'}\n",
    "灯塔在哪里?在海港以北的悬崖上。🗼 é à\n\n",
] * 20


def byte_level(directory: Path, *, knows_markers: bool) -> Path:
    """A byte-level BPE, as Llama 3 and Qwen have. knows_markers: whether templates' markers are single tokens of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    if knows_markers:
        special += [*SPECIAL, *[f"<filler_{number}>" for number in range(RESERVED_106 - 2 - len(SPECIAL))]]
        special += ["<reserved_106>", "<reserved_107>"]
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 360,
        special_tokens=[AddedToken(token, special=True) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return _saved(tokenizer, directory)


def byte_fallback(directory: Path) -> Path:
    """A BPE over characters with spaces written as ▁ and bytes for what is unknown, as Llama 2 and Baichuan2 have."""
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator([text for text in TEXT if text.isascii()], trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special[:3]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _saved(tokenizer, directory)


def _saved(tokenizer: Tokenizer, directory: Path) -> Path:
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory
