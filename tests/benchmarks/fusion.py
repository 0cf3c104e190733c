"""R_fuse: the time of K trials one after another over the time of the same K trials together, in one process.

One after another is the same code with one seat, warm. Beside it the same against K raw PEFT loops, and how far the
results are apart. All variants of a shape are timed in turns, so that what else the machine does cancels out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from tests.benchmarks.loops import PeftLoop, Seats, Timed, largest_difference, llama, random_rows, replicated, trial
from tests.benchmarks.reporting import Options, Report, Row, Table, Target

from pharos.plan.trial import TrialPlan

SEATS = (1, 2, 4, 8, 16)
MODELS = ((64, 2), (128, 4), (256, 4))  # hidden size, layers; at 256 a CPU has no idle time left to win
BATCHES = ((1, 16), (1, 48), (8, 48))  # rows, tokens
REPETITIONS = 5
SECONDS_A_REPETITION = 5.0
TARGET_SEATS = 8
SMALL_HIDDEN, SMALL_BATCH = (64, 128), (1, 16)
"""Where a single trial leaves a core idle, which is what fusing is for; the other shapes show where that ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One shape. ratios: per number of seats; ratios_cpu: the same by computing time. differences: of final losses."""

    hidden_size: int
    num_layers: int
    batch_rows: int
    row_tokens: int
    num_steps: int
    alone_ms: float
    peft_ms: float
    fused_ms: dict[int, float]
    ratios: dict[int, float]
    ratios_cpu: dict[int, float]
    ratios_peft: dict[int, float]
    fused_difference: float
    peft_difference: float


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    seats = (1, 2) if options.smoke else SEATS
    models = ((16, 1),) if options.smoke else MODELS
    batches = ((1, 16),) if options.smoke else BATCHES
    cells = []
    for hidden_size, num_layers in models:
        for batch_rows, row_tokens in batches:
            cells.append(measure(hidden_size, num_layers, batch_rows, row_tokens, seats=seats, smoke=options.smoke))
            print(f"fusion: hidden {hidden_size}, micro-batch {batch_rows} x {row_tokens} done", flush=True)
    regret = search_twice(num_steps=4 if options.smoke else 60)
    return Report(
        settings={
            "base": "replicated, one process",
            "r": 8,
            "vocabulary": 512,
            "repetitions": REPETITIONS,
            "of repetitions": "median",
            "timed": "forward, backward, clipping, AdamW, schedule; no evaluation, no checkpoints",
        },
        tables=[
            Table(title="R_fuse: alone one after another / fused", rows=[_row(cell, cell.ratios) for cell in cells]),
            Table(title="R_fuse by CPU time", rows=[_row(cell, cell.ratios_cpu) for cell in cells]),
            Table(title="raw PEFT loops / fused", rows=[_row(cell, cell.ratios_peft) for cell in cells]),
            Table(title="milliseconds a step (alone, raw PEFT) and a clock", rows=[_times(cell) for cell in cells]),
            Table(title="a search of learning rate x r, scored on held-out rows", rows=regret),
        ],
        quality={
            "largest difference of final losses, fused and alone": max(cell.fused_difference for cell in cells),
            "largest difference of final losses, raw PEFT and alone": max(cell.peft_difference for cell in cells),
            "largest difference of scores, fused and sequential search": max(abs(r["difference"]) for r in regret),
            "same winner": _winner(regret, "fused") == _winner(regret, "sequential"),
            "regret": regret[_winner(regret, "fused")]["sequential"] - min(r["sequential"] for r in regret),
        },
        targets=[
            Target(
                what=f"R_fuse, hidden {cell.hidden_size}, {cell.batch_rows} x {cell.row_tokens}, K={TARGET_SEATS}",
                measured=cell.ratios[TARGET_SEATS],
                limit=3.0,
            )
            for cell in cells
            if TARGET_SEATS in cell.ratios
            and cell.hidden_size in SMALL_HIDDEN
            and (cell.batch_rows, cell.row_tokens) == SMALL_BATCH
        ],
    )


def measure(
    hidden_size: int, num_layers: int, batch_rows: int, row_tokens: int, *, seats: tuple[int, ...], smoke: bool
) -> Cell:
    """All variants of one shape. Each repetition trains every trial from its first step to its last."""
    model = llama(hidden_size=hidden_size, num_layers=num_layers)
    rows = random_rows(64, shortest=row_tokens, longest=row_tokens)
    pools = {k: Seats(replicated(model), rows, num_seats=k, micro_batch_size=batch_rows, r_max=8) for k in seats}
    peft = PeftLoop(replicated(model).module, rows, r=8)

    def trials(num_steps: int) -> list[TrialPlan]:
        return [trial(number, num_steps=num_steps, batch_size=batch_rows) for number in range(max(seats))]

    for pool in pools.values():
        pool.train(trials(1)[:1])
    peft.train(trials(1)[0])
    num_steps = 4 if smoke else _affordable_steps(pools[1].train(trials(3)[:1]).cpu_s / 3, seats)

    plans = trials(num_steps)
    jobs: dict[str, Callable[[], Timed]] = {}
    for plan in plans:
        jobs[f"alone {plan.number}"] = lambda plan=plan: pools[1].train([plan])
        jobs[f"peft {plan.number}"] = lambda plan=plan: peft.train(plan)
    for k in seats:
        jobs[f"fused {k}"] = lambda k=k: pools[k].train(plans[:k])
    repetitions = []
    for repetition in range(1 if smoke else REPETITIONS):
        order = sorted(jobs)
        random.Random(repetition).shuffle(order)
        repetitions.append({name: jobs[name]() for name in order})

    def ratio(way: str, k: int, clock: str = "seconds") -> float:
        return median(
            sum(getattr(done[f"{way} {number}"], clock) for number in range(k)) / getattr(done[f"fused {k}"], clock)
            for done in repetitions
        )

    last = repetitions[-1]
    alone = {number: last[f"alone {number}"].losses[number] for number in range(len(plans))}
    raw = {number: last[f"peft {number}"].losses[number] for number in range(len(plans))}
    return Cell(
        hidden_size=hidden_size,
        num_layers=num_layers,
        batch_rows=batch_rows,
        row_tokens=row_tokens,
        num_steps=num_steps,
        alone_ms=_step_ms(repetitions, "alone", num_steps),
        peft_ms=_step_ms(repetitions, "peft", num_steps),
        fused_ms={k: _step_ms(repetitions, f"fused {k}", num_steps) for k in seats},
        ratios={k: ratio("alone", k) for k in seats},
        ratios_cpu={k: ratio("alone", k, "cpu_s") for k in seats},
        ratios_peft={k: ratio("peft", k) for k in seats},
        fused_difference=max(largest_difference(last[f"fused {k}"].losses, alone) for k in seats),
        peft_difference=largest_difference(raw, alone),
    )


def search_twice(*, num_steps: int) -> list[dict[str, float]]:
    """Eight points of learning rate x r to full length, together in one pool and one after another in another."""
    model = llama(hidden_size=64, num_layers=2)
    rows = random_rows(256, shortest=12, longest=24, seed=1)
    held_out = random_rows(32, shortest=12, longest=24, seed=2)
    points = [(rate, r) for rate in (1e-3, 5e-3, 2e-2, 5e-2) for r in (2, 16)]
    plans = [
        trial(number, num_steps=num_steps, batch_size=4, r=r, learning_rate=rate)
        for number, (rate, r) in enumerate(points)
    ]
    pools = [
        Seats(replicated(model), rows, num_seats=k, micro_batch_size=4, r_max=16, eval_rows=held_out)
        for k in (len(plans), 1)
    ]
    fused = pools[0].train(plans, evaluate=True).scores
    sequential = {plan.number: pools[1].train([plan], evaluate=True).scores[plan.number] for plan in plans}
    return [
        {
            "learning_rate": rate,
            "r": r,
            "fused": fused[number],
            "sequential": sequential[number],
            "difference": fused[number] - sequential[number],
        }
        for number, (rate, r) in enumerate(points)
    ]


def _affordable_steps(step_s: float, seats: tuple[int, ...]) -> int:
    """Steps of a trial so that one repetition, all variants together, takes about its share of time."""
    steps_a_repetition = 2 * max(seats) + sum(seats) / 2
    return min(30, max(3, round(SECONDS_A_REPETITION / (step_s * steps_a_repetition))))


def _step_ms(repetitions: list[dict[str, Timed]], prefix: str, num_steps: int) -> float:
    """Median time of a step of all jobs whose name is, or begins with, the prefix."""
    seconds = [
        done.seconds
        for jobs in repetitions
        for name, done in jobs.items()
        if name == prefix or name.split()[0] == prefix
    ]
    return 1000 * median(seconds) / num_steps


def _shape(cell: Cell) -> Row:
    return {
        "hidden": cell.hidden_size,
        "layers": cell.num_layers,
        "micro-batch": f"{cell.batch_rows} x {cell.row_tokens}",
    }


def _row(cell: Cell, ratios: dict[int, float]) -> Row:
    return {**_shape(cell), **{f"K={k}": round(ratio, 3) for k, ratio in ratios.items()}, "steps": cell.num_steps}


def _times(cell: Cell) -> Row:
    fused = {f"K={k}": round(ms, 2) for k, ms in cell.fused_ms.items()}
    return {**_shape(cell), "alone": round(cell.alone_ms, 2), "raw PEFT": round(cell.peft_ms, 2), **fused}


def _winner(rows: list[dict[str, float]], way: str) -> int:
    return min(range(len(rows)), key=lambda number: rows[number][way])
