"""What is probably not meant about a template with a tokenizer, in sentences. Training goes on.

Found by what the template writes, also for a row made up for the purpose. No data are read here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import takewhile

from pharos.data.formats import Conversation, Origin, Turn
from pharos.data.spans import trained_spans
from pharos.data.template import TOKENIZER, Template
from pharos.errors import DataError
from pharos.spec.rules import BUILTIN_TEMPLATES

# Special tokens that a built-in template writes besides bos and eos, and of them the one that ends an answer.
NEEDED_TOKENS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "qwen": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("[INST]", "[/INST]"),
    "baichuan2": ("<reserved_106>", "<reserved_107>"),
}
END_TOKENS = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama3": "<|eot_id|>"}
SPECIAL_WORDS = re.compile(r"<\|\w+\|>")
"""What is meant as one token in a template that somebody wrote."""

EXCHANGE = Conversation(
    turns=(Turn(role="user", content="a"), Turn(role="assistant", content="b")), origin=Origin(file="", row=0)
)


def template_warnings(template: Template, known_tokens: Collection[str]) -> list[str]:
    """What to warn of. known_tokens: of the tokenizer, those that are single tokens wherever they stand."""
    warnings = [*_missing_tokens(template, known_tokens)]
    try:
        return [*warnings, *_prompt_that_goes_on(template), *_end_that_does_not_train(template)]
    except DataError:  # it refuses the made-up row; what it says to real ones is told with their place
        return warnings


def _missing_tokens(template: Template, known_tokens: Collection[str]) -> Iterator[str]:
    """Markers that the tokenizer cuts into pieces. The tokenizer's own template fits it."""
    if template.name == TOKENIZER:
        return
    written = NEEDED_TOKENS.get(template.name, ())
    if template.name not in BUILTIN_TEMPLATES:
        written = tuple(dict.fromkeys(SPECIAL_WORDS.findall(template.source)))
    missing = [token for token in written if token not in known_tokens]
    if not missing:
        return
    *others, last = missing
    listed = f"{', '.join(others)} and {last}, which are no tokens" if others else f"{last}, which is no token"
    end = END_TOKENS.get(template.name)
    ending = " No single token ends an answer, so generating goes on to its limit." if end in missing else ""
    yield (
        f"data.template={template.name} writes {listed} of this tokenizer: tokenised as text, in pieces whose meaning "
        f"the base must learn from these rows.{ending} data.template=plain needs no markers."
    )


def _prompt_that_goes_on(template: Template) -> Iterator[str]:
    """A generation prompt that holds more than what stands before an answer: <think>, where rows hold no thoughts."""
    prompt = template.render(EXCHANGE.turns[:1], add_generation_prompt=True)
    text = template.render(EXCHANGE.turns)
    if not text.startswith(prompt):
        in_common = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, text, strict=False))
        beyond = prompt[len(list(in_common)) :]
        yield (
            f"{template.title} ends its generation prompt with {beyond!r}, which it does not write before an answer: "
            "rows are trained on without it, but when the model generates, it begins after it."
        )


def _end_that_does_not_train(template: Template) -> Iterator[str]:
    """Generation blocks that leave out what ends an answer."""
    if not template.marks_generations:
        return
    text, spans = trained_spans(template, EXCHANGE, "last")
    left_out = text[spans[-1][1] :].strip() if spans else ""
    if left_out:
        yield (
            f"{template.title} marks the assistant's words by {{% generation %}} without {left_out!r} behind them: "
            "the model is not trained to end its answers. Move {% endgeneration %} behind it."
        )
