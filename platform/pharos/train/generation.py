"""Greedy answers of several seats to the same prompts, all in one lockstep batch, and how good they are.

Every rank makes the same number of forward passes, with or without seats of its own: ZeRO-3 gathers the base in each.

Shape letters: S seats in use, P prompts, R rows (seat-major, S x P), T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from pharos.data.prepare import open_prompts
from pharos.model.adapter_bank import AdapterBank
from pharos.model.generate import left_padded, load_tokenizer, until
from pharos.model.scores import score_answers
from pharos.plan.pool import GenerationSettings
from pharos.train.frozen_base import FrozenBase
from pharos.train.group import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What the seats are asked: token ids of each prompt, the reference answers as text, and what reads theirs."""

    prompts: tuple[tuple[int, ...], ...]
    references: tuple[str, ...]
    settings: GenerationSettings
    tokenizer: PreTrainedTokenizerBase


def open_questions(settings: GenerationSettings, *, data_dir: Path, base_dir: Path) -> Questions:
    """The first `max_rows` eval rows."""
    prompts, references = open_prompts(data_dir, "eval")
    return Questions(
        prompts=tuple(tuple(prompt.tolist()) for prompt in prompts[: settings.max_rows]),
        references=tuple(references[: settings.max_rows]),
        settings=settings,
        tokenizer=load_tokenizer(base_dir),
    )


def answer_metrics(
    questions: Questions,
    seats: Sequence[int],
    *,
    base: FrozenBase,
    bank: AdapterBank,
    group: Group,
    split_rows: bool,
) -> list[dict[str, float]]:
    """Metrics of the answers of each of this rank's seats (ascending). A collective.

    split_rows: all ranks hold the same seats, and each answers a part of the prompts; otherwise each rank answers all
    of them for its own seats.
    """
    num_shards, shard = (group.world_size, group.rank) if split_rows else (1, 0)
    own = questions.prompts[shard::num_shards]
    answers_SP = greedy_answers(own, seats, questions.settings, base=base, bank=bank, group=group)
    texts_SP = [questions.tokenizer.batch_decode(answers, skip_special_tokens=True) for answers in answers_SP]
    if split_rows:
        parts = group.all_gather_objects(texts_SP)
        texts_SP = [_in_order([part[index] for part in parts], len(questions.prompts)) for index in range(len(seats))]
    return [score_answers(texts, questions.references).total.to_json() for texts in texts_SP]


@torch.no_grad()
def greedy_answers(
    prompts: Sequence[Sequence[int]],
    seats: Sequence[int],
    settings: GenerationSettings,
    *,
    base: FrozenBase,
    bank: AdapterBank,
    group: Group,
) -> list[list[list[int]]]:
    """The answer to each prompt by each seat, without prompt and end token. A collective.

    It ends when all rows of all ranks have ended, or after `max_new_tokens`. A rank without seats or prompts keeps up
    with a row of its own that nobody reads.
    """
    device = group.device
    is_busy = bool(seats) and bool(prompts)
    asked = list(prompts) * len(seats) if is_busy else [[settings.pad_id]]
    tokens_RT, mask_RT = left_padded(asked, settings.pad_id, device)
    stops = torch.tensor(settings.stop_ids, device=device)
    answers: list[torch.Tensor] = []
    ended_R = torch.full((len(asked),), not is_busy, device=device)
    cache = None
    with bank.active(seats if is_busy else []):
        for _ in range(settings.max_new_tokens):
            # Of a row that is padded on the left, positions count from its first token.
            positions_RT = (mask_RT.cumsum(1) - 1).clamp(min=0)[:, -tokens_RT.shape[1] :]
            logits_RV, cache = _last_logits(base.module, tokens_RT, mask_RT, positions_RT, cache)
            next_R = logits_RV.argmax(-1).where(~ended_R, settings.pad_id)
            answers.append(next_R)
            ended_R = ended_R | torch.isin(next_R, stops)
            if _all_ended(ended_R, group):
                break
            tokens_RT, mask_RT = next_R[:, None], torch.cat([mask_RT, mask_RT.new_ones(len(asked), 1)], dim=1)
    base.release()
    if not is_busy:
        return [[] for _ in seats]
    written = torch.stack(answers, dim=1).tolist()
    cut = [until(answer, settings.stop_ids) for answer in written]
    return [cut[start : start + len(prompts)] for start in range(0, len(cut), len(prompts))]


def _last_logits(
    model: nn.Module,
    tokens_RT: torch.Tensor,
    mask_RT: torch.Tensor,
    positions_RT: torch.Tensor,
    cache: object | None,
) -> tuple[torch.Tensor, object]:
    """Logits (R, V) after each row's last token, and the cache to go on with; other places skip the output layer."""

    def pick(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, -1:], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        output = model(
            input_ids=tokens_RT,
            attention_mask=mask_RT,
            position_ids=positions_RT,
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits[:, -1], output.past_key_values
    finally:
        handle.remove()


def _all_ended(ended_R: torch.Tensor, group: Group) -> bool:
    """Whether no rank has a row left that goes on."""
    going_on = (~ended_R).any().float().reshape(1)
    group.all_reduce(going_on)
    return not bool(going_on.item())


def _in_order(parts: Sequence[Sequence[str]], num_rows: int) -> list[str]:
    """Rows that were dealt to the ranks in turn, in their first order."""
    texts = np.empty(num_rows, dtype=object)
    for rank, part in enumerate(parts):
        texts[rank :: len(parts)] = part
    return texts.tolist()
