"""Real tokens a second in a pool: rows packed into sequences, against rows padded to the longest of their batch.

Both ways see the same rows, about as many tokens a clock, in four seats. What pads cost at most is the share of a
padded batch that they are; what is lost of that is attention, which grows with the length of a sequence.
"""

from __future__ import annotations

from statistics import median

import numpy as np
import torch
from tests.benchmarks.loops import Seats, llama, random_rows, replicated, trial
from tests.benchmarks.reporting import Options, Report, Row, Table, Target
from tests.support.token_rows import packed_rows, rows_in_memory

from pharos.data.order import row_order
from pharos.data.prepare import TokenRows

LENGTHS = (256, 512, 2048)
TARGET_LENGTH = 256
MEAN_SHARE = 0.35
"""The mean length of a row over the longest: conversations and worked answers are about so uneven."""
CLOCK_TOKENS = 2048
"""Real tokens of one seat in a clock, about."""
SEATS, REPETITIONS, NUM_STEPS = 4, 3, 3


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    lengths = (32,) if options.smoke else LENGTHS
    clock_tokens, num_steps = (64, 2) if options.smoke else (CLOCK_TOKENS, NUM_STEPS)
    table = [measure(longest, clock_tokens=clock_tokens, num_steps=num_steps) for longest in lengths]
    return Report(
        settings={"base": "replicated, one process", "seats": SEATS, "steps": num_steps, "repetitions": REPETITIONS},
        tables=[Table(title="real tokens/s, packed and padded", rows=table)],
        quality={"largest difference of a loss over packs and over rows": max(row["loss difference"] for row in table)},
        targets=[
            Target(
                what=f"packed / padded, of what pads cost, at {row['max_length']}", measured=row["reached"], limit=0.8
            )
            for row in table
            if row["max_length"] == TARGET_LENGTH
        ],
    )


def measure(longest: int, *, clock_tokens: int, num_steps: int) -> Row:
    """One length of sequences. reached: the gain in tokens/s over the gain that the pads' share would allow."""
    rows = uneven_rows(longest, num_tokens=max(4 * clock_tokens * num_steps, 8 * longest))
    packs = packed_rows(rows, longest)
    batch_rows = max(1, round(clock_tokens / rows.lengths.mean()))
    batch_packs = max(1, round(clock_tokens / packs.lengths.mean()))
    base = replicated(llama(hidden_size=192, num_layers=3))
    ways = {
        "padded": (
            Seats(base, rows, num_seats=SEATS, micro_batch_size=batch_rows, r_max=8, eval_rows=rows),
            batch_rows,
        ),
        "packed": (
            Seats(
                replicated(llama(hidden_size=192, num_layers=3)),
                packs,
                num_seats=SEATS,
                micro_batch_size=batch_packs,
                r_max=8,
                eval_rows=packs,
            ),
            batch_packs,
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for seats, batch in ways.values():
        seats.train([trial(number, num_steps=1, batch_size=batch) for number in range(SEATS)])
    for _ in range(REPETITIONS):
        for way, (seats, batch) in ways.items():
            timed = seats.train([trial(number, num_steps=num_steps, batch_size=batch) for number in range(SEATS)])
            seconds[way].append(timed.seconds)
    tokens_a_second = {
        way: SEATS * _real_tokens(packs if way == "packed" else rows, batch, num_steps) / median(seconds[way])
        for way, (_, batch) in ways.items()
    }
    real_share = _real_share(rows, batch_rows, num_steps)
    ratio = tokens_a_second["packed"] / tokens_a_second["padded"]
    return {
        "max_length": longest,
        "rows a clock": batch_rows,
        "packs a clock": batch_packs,
        "fill": round(float(packs.lengths.mean()) / longest, 3),
        "share not pads": round(real_share, 3),
        "padded": round(tokens_a_second["padded"]),
        "packed": round(tokens_a_second["packed"]),
        "ratio": round(ratio, 3),
        "reached": round(ratio * real_share, 3),
        "loss difference": loss_difference(rows, packs, batch_rows),
    }


def uneven_rows(longest: int, *, num_tokens: int) -> TokenRows:
    """Rows of lognormal lengths up to `longest`, of which the latter 60 in 100 tokens are trained."""
    generator = np.random.default_rng(longest)
    mean = MEAN_SHARE * longest
    lengths = generator.lognormal(np.log(mean) - 0.125, 0.5, size=round(num_tokens / mean)).clip(4, longest).astype(int)
    whole = random_rows(1, shortest=int(lengths.sum()), longest=int(lengths.sum()))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    trained = np.ones(offsets[-1], dtype=np.uint8)
    for start, length in zip(offsets[:-1], lengths, strict=True):
        trained[start : start + max(1, round(length * 0.4))] = 0
    return rows_in_memory(whole.tokens, trained, offsets)


def loss_difference(rows: TokenRows, packs: TokenRows, batch_rows: int) -> float:
    """Between the loss of one trained adapter over all rows apart, and over all of them packed."""
    scores = []
    for eval_rows in (rows, packs):
        base = replicated(llama(hidden_size=64, num_layers=2))
        seats = Seats(base, rows, num_seats=1, micro_batch_size=batch_rows, r_max=8, eval_rows=eval_rows)
        scores.append(seats.train([trial(0, num_steps=2, batch_size=batch_rows)], evaluate=True).scores[0])
    return abs(scores[0] - scores[1])


def _real_tokens(rows: TokenRows, batch: int, num_steps: int) -> int:
    return int(rows.lengths[row_order(len(rows), 0, 0, batch * num_steps)].sum())


def _real_share(rows: TokenRows, batch: int, num_steps: int) -> float:
    """Of the positions of padded batches, those that hold a token of a row."""
    batches = rows.lengths[row_order(len(rows), 0, 0, batch * num_steps)].reshape(num_steps, batch)
    return float(batches.sum() / (batches.max(axis=1) * batch).sum())
