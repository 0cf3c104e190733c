"""Greedy answers of a model to token prompts, and how many of them are exactly right.

Generation is plain transformers; what a base's generation_config.json asks for (sampling, penalties) is left out, so
that one model gives one answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from pharos.model.loading import load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    prompt: str
    answer: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactMatch:
    """score: the share of rows whose answer is the reference, spaces around both removed. examples: the first rows."""

    score: float
    num_rows: int
    examples: tuple[Example, ...]


@torch.no_grad()
def generate_answers(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    eos_id: int | Collection[int],
    pad_id: int,
    max_new_tokens: int,
    batch_size: int,
) -> list[list[int]]:
    """The greedy answer to each prompt, in the prompts' order, without the prompt and without the end token.

    Prompts of similar length share a batch, padded on the left.
    """
    if not all(prompts):
        raise ValueError("a prompt needs at least one token")
    eos_ids = [eos_id] if isinstance(eos_id, int) else sorted(eos_id)
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=eos_ids or None, pad_token_id=pad_id
    )
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    own, model.generation_config = model.generation_config, GenerationConfig()  # its values would fill ours
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            tokens, attention_mask = left_padded([prompts[index] for index in indices], pad_id, model.device)
            generated = model.generate(input_ids=tokens, attention_mask=attention_mask, generation_config=greedy)
            for index, answer in zip(indices, generated[:, tokens.shape[1] :].tolist(), strict=True):
                answers[index] = until(answer, eos_ids)
    finally:
        model.generation_config = own
    return answers


def exact_match(
    model_dir: Path,
    prompts: Sequence[Sequence[int]],
    references: Sequence[str],
    *,
    max_new_tokens: int,
    adapter_dir: Path | None = None,
    batch_size: int = 32,
    num_examples: int = 5,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> ExactMatch:
    """Generate an answer to each prompt with the model in `model_dir` and compare it with its reference.

    Args:
        adapter_dir: an adapter on top of the model, loaded by stock PEFT; None for a merged model.

    Raises HandOverError if the model is not whole.
    """
    if len(prompts) != len(references) or not prompts:
        raise ValueError(f"{len(prompts)} prompts and {len(references)} references: give one for each, at least one")
    model = load_model(
        model_dir, dtype=dtype, adapter_dir=adapter_dir, device=device, trust_remote_code=trust_remote_code
    )
    tokenizer = load_tokenizer(model_dir, trust_remote_code=trust_remote_code)
    eos_ids = _ids(model.generation_config.eos_token_id) | _ids(tokenizer.eos_token_id)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids, default=0)
    generated = generate_answers(
        model, prompts, eos_id=eos_ids, pad_id=pad_id, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    answers = [text.strip() for text in tokenizer.batch_decode(generated, skip_special_tokens=True)]
    examples = tuple(
        Example(prompt=tokenizer.decode(prompt), answer=answer, reference=reference)
        for prompt, answer, reference in list(zip(prompts, answers, references, strict=True))[:num_examples]
    )
    score = share_of_exact_matches(answers, references)
    return ExactMatch(score=score, num_rows=len(prompts), examples=examples)


def share_of_exact_matches(answers: Sequence[str], references: Sequence[str]) -> float:
    """The share of answers that are their reference, spaces around both removed."""
    pairs = zip(answers, references, strict=True)
    return sum(answer.strip() == reference.strip() for answer, reference in pairs) / max(1, len(references))


def load_tokenizer(model_dir: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's directory."""
    return AutoTokenizer.from_pretrained(model_dir, trust_remote_code=trust_remote_code, local_files_only=True)


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, T) and attention mask (B, T): generation goes on at the right end of every row."""
    length = max(len(prompt) for prompt in prompts)
    tokens = [[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def until(tokens: list[int], eos_ids: Collection[int]) -> list[int]:
    """The tokens before the first end token."""
    return tokens[: next((place for place, token in enumerate(tokens) if token in eos_ids), len(tokens))]


def _ids(value: int | list[int] | None) -> set[int]:
    if value is None:
        return set()
    return {value} if isinstance(value, int) else set(value)
