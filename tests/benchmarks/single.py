"""Tokens per second of one trial alone in one seat, against a raw PyTorch + PEFT + AdamW loop on the same batches.

It shows what the machinery for many trials costs one. Both are timed in turns; the loop's batches lie ready.
"""

from __future__ import annotations

from statistics import median

import torch
from tests.benchmarks.loops import PeftLoop, Seats, largest_difference, llama, random_rows, replicated, trial
from tests.benchmarks.reporting import Options, Report, Table, Target

# hidden size, layers, rows, shortest and longest row, trained share; the last has the quickstart's shape
SHAPES = (
    (64, 2, 1, 48, 48, 1.0),
    (128, 4, 1, 48, 48, 1.0),
    (128, 4, 8, 48, 48, 1.0),
    (256, 4, 8, 48, 48, 1.0),
    (192, 3, 8, 24, 64, 0.4),
)
REPETITIONS = 7
NUM_STEPS = 16


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    shapes = ((16, 1, 1, 16, 16, 1.0),) if options.smoke else SHAPES
    num_steps, repetitions = (4, 1) if options.smoke else (NUM_STEPS, REPETITIONS)
    table = [measure(*shape, num_steps=num_steps, repetitions=repetitions) for shape in shapes]
    return Report(
        settings={"base": "replicated, one process", "r": 8, "steps": num_steps, "repetitions": repetitions},
        tables=[Table(title="tokens/s, one trial; ratio Pharos / raw PEFT", rows=table)],
        quality={"largest difference of final losses": max(row["loss difference"] for row in table)},
        targets=[
            Target(what=f"hidden {row['hidden']}, {row['rows']}", measured=row["ratio"], limit=0.9) for row in table
        ],
    )


def measure(
    hidden_size: int,
    num_layers: int,
    batch_rows: int,
    shortest: int,
    longest: int,
    trained_share: float,
    *,
    num_steps: int,
    repetitions: int,
) -> dict[str, float | str]:
    """Tokens/s of the best repetition; the ratio's median over those within one, which times both in either order."""
    model = llama(hidden_size=hidden_size, num_layers=num_layers)
    rows = random_rows(num_steps * batch_rows, shortest=shortest, longest=longest, trained_share=trained_share)
    num_tokens = int(rows.lengths.sum())  # every row once
    seats = Seats(replicated(model), rows, num_seats=1, micro_batch_size=batch_rows, r_max=8)
    peft = PeftLoop(replicated(model).module, rows, r=8)
    plan = trial(0, num_steps=num_steps, batch_size=batch_rows)
    warm = trial(0, num_steps=2, batch_size=batch_rows)
    seats.train([warm])
    peft.train(warm)
    pairs = []
    for repetition in range(repetitions):
        if repetition % 2 == 0:
            ours, raw = seats.train([plan]), peft.train(plan)
        else:
            raw, ours = peft.train(plan), seats.train([plan])
        pairs.append((ours, raw))
    lengths = str(longest) if shortest == longest else f"{shortest} to {longest}"
    return {
        "hidden": hidden_size,
        "layers": num_layers,
        "rows": f"{batch_rows} x {lengths}",
        "trained share": trained_share,
        "Pharos": round(max(num_tokens / ours.seconds for ours, _ in pairs)),
        "raw PEFT": round(max(num_tokens / raw.seconds for _, raw in pairs)),
        "ratio": round(median(raw.seconds / ours.seconds for ours, raw in pairs), 3),
        "by CPU time": round(median(raw.cpu_s / ours.cpu_s for ours, raw in pairs), 3),
        "loss difference": max(largest_difference(ours.losses, raw.losses) for ours, raw in pairs),
    }
