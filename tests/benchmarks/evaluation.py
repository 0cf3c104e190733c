"""What `pharos eval` computes, against plain transformers: answers by `generate`, batch after batch in the order of the
file, padded on the left; losses by the model's own loss, padded on the right.

The model has random weights. Every fiftieth token ends an answer, so answers are as uneven as real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import numpy as np
import torch
from tests.benchmarks.loops import VOCAB_SIZE, llama
from tests.benchmarks.reporting import Options, Report, Row, Table, Target
from tests.support.token_rows import rows_in_memory
from torch.nn import functional as F
from transformers import GenerationConfig, PreTrainedModel

from pharos.data.prepare import TokenRows
from pharos.model.generate import generate_answers
from pharos.train.row_losses import row_losses

SHAPES = {
    "1.3M parameters": {"hidden_size": 192, "num_layers": 3},
    "4M parameters": {"hidden_size": 288, "num_layers": 4},
}
NUM_ROWS, BATCH, MAX_NEW_TOKENS, LONGEST = 96, 32, 48, 192
ENDS_ONE_IN = 50
"""Tokens among which one ends an answer: the mean answer has about so many, cut at MAX_NEW_TOKENS."""
REPETITIONS = 2


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    num_rows, repetitions = (8, 1) if options.smoke else (NUM_ROWS, REPETITIONS)
    shapes = {"tiny": {"hidden_size": 32, "num_layers": 1}} if options.smoke else SHAPES
    generation, losses = [], []
    for name, shape in shapes.items():
        model, rows = llama(**shape).eval(), uneven_rows(num_rows)
        generation.append({"model": name} | measure_generation(model, rows, repetitions))
        losses.append({"model": name} | measure_losses(model, rows, repetitions))
    return Report(
        settings={"rows": num_rows, "batch": BATCH, "max_new_tokens": MAX_NEW_TOKENS, "repetitions": repetitions},
        tables=[
            Table(title="answers by generation", rows=generation),
            Table(title="losses of given answers", rows=losses),
        ],
        quality={
            "same answers": all(row["same answers"] for row in generation),
            "largest difference of a loss": max(row["difference"] for row in losses),
        },
        targets=[
            *(Target(what=f"answers, {row['model']}", measured=row["ratio"], limit=1.0) for row in generation),
            *(Target(what=f"losses, {row['model']}", measured=row["ratio"], limit=1.0) for row in losses),
        ],
        notes=["medians; the ways take turns, so that what else the machine does meets both"],
    )


def measure_generation(model: PreTrainedModel, rows: TokenRows, repetitions: int) -> Row:
    """ratio: tokens a second of our answers over those of the plain loop."""
    prompts = [rows.row(index)[0].tolist() for index in range(len(rows))]
    ends = set(range(0, model.config.vocab_size, ENDS_ONE_IN))
    ours: list[list[int]] = []
    theirs: list[list[int]] = []

    def pharos() -> None:
        ours[:] = generate_answers(
            model, prompts, eos_id=ends, pad_id=0, max_new_tokens=MAX_NEW_TOKENS, batch_size=BATCH
        )

    def plain() -> None:
        theirs[:] = plain_answers(model, prompts, sorted(ends))

    seconds = alternate({"pharos": pharos, "plain": plain}, repetitions)
    num_tokens = sum(len(answer) for answer in ours)
    return {
        "tokens": num_tokens,
        **{f"{way} tokens/s": round(num_tokens / seconds[way]) for way in seconds},
        **{f"{way} rows/s": round(len(rows) / seconds[way], 1) for way in seconds},
        "ratio": round(seconds["plain"] / seconds["pharos"], 3),
        "same answers": ours == theirs,
    }


def measure_losses(model: PreTrainedModel, rows: TokenRows, repetitions: int) -> Row:
    """ratio: rows a second of ours over those of the plain loop. difference: of one row's loss, relative."""
    ours = np.zeros(len(rows))
    theirs = np.zeros(len(rows))

    def pharos() -> None:
        ours[:] = row_losses(model, rows).loss_sums

    def plain() -> None:
        theirs[:] = plain_losses(model, rows)

    seconds = alternate({"pharos": pharos, "plain": plain}, repetitions)
    return {
        **{f"{way} rows/s": round(len(rows) / seconds[way], 1) for way in seconds},
        "ratio": round(seconds["plain"] / seconds["pharos"], 3),
        "difference": float((np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))).max()),
    }


@torch.no_grad()
def plain_answers(model: PreTrainedModel, prompts: Sequence[Sequence[int]], ends: list[int]) -> list[list[int]]:
    """As an evaluation script does it: the rows as they come, all of a batch until its last one ends."""
    config = GenerationConfig(do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=ends, pad_token_id=0)
    answers = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        length = max(len(prompt) for prompt in batch)
        tokens = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in batch])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in batch])
        generated = model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)
        for row in generated[:, length:].tolist():
            end = next((place for place, token in enumerate(row) if token in ends), len(row))
            answers.append(row[:end])
    return answers


@torch.no_grad()
def plain_losses(model: PreTrainedModel, rows: TokenRows) -> list[float]:
    """Summed loss of each row: the rows as they come, logits of every position."""
    sums: list[float] = []
    for start in range(0, len(rows), BATCH):
        pairs = [rows.row(index) for index in range(start, min(start + BATCH, len(rows)))]
        length = max(len(tokens) for tokens, _ in pairs)
        tokens = torch.zeros((len(pairs), length), dtype=torch.long)
        mask = torch.zeros((len(pairs), length), dtype=torch.long)
        labels = torch.full((len(pairs), length), -100)
        for place, (own, trained) in enumerate(pairs):
            row = torch.tensor(own.astype(np.int64))
            tokens[place, : len(own)], mask[place, : len(own)] = row, 1
            labels[place, : len(own)] = torch.where(torch.tensor(trained), row, -100)
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
        losses = F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        sums += losses.sum(dim=1).tolist()
    return sums


def alternate(ways: dict[str, Callable[[], None]], repetitions: int) -> dict[str, float]:
    """Median seconds of each way, which take turns; a first turn of each is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in range(repetitions + 1):
        for way, work in ways.items():
            started_s = perf_counter()
            work()
            if repetition:
                seconds[way].append(perf_counter() - started_s)
    return {way: median(taken) for way, taken in seconds.items()}


def uneven_rows(num_rows: int) -> TokenRows:
    """Rows of 8 to LONGEST tokens, most of them short; the last half of each is trained."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(1.5, LONGEST / 6, num_rows).astype(np.int64), 8, LONGEST)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return rows_in_memory(
        rng.integers(1, VOCAB_SIZE, int(offsets[-1])), place >= np.repeat(lengths // 2, lengths), offsets
    )
