"""One of two ranks that train over a base sharded with ZeRO-3. Started by test_zero3.py: BASE_DIR OUTPUT_DIR.

Rank 0 writes what was seen as JSON; the runs themselves lie in checkpoints.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from equality_pools import (
    SHORT,
    SPLIT,
    SPLIT_ODD,
    Run,
    rows_of_all_splits,
    settings,
    train_in,
    trial,
)
from torch import distributed as dist

from pharos.plan.exchange import Orders, Score
from pharos.plan.pool import PoolSettings
from pharos.train.frozen_base import FrozenBase, Zero3Base, load_base
from pharos.train.group import Group, distributed_group
from pharos.train.loop import run_pool
from pharos.train.open_pool import Pool, make_pool
from pharos.train.stopwatch import Stopwatch

torch.set_num_threads(1)


class WatchedBase:
    """A base that notes what it holds before and after each release."""

    def __init__(self, base: FrozenBase) -> None:
        self._base, self.module = base, base.module
        self.held_within: list[int] = []
        self.held_between: list[int] = [base.parameter_bytes_held()]

    def release(self) -> None:
        self.held_within.append(self._base.parameter_bytes_held())
        self._base.release()
        self.held_between.append(self._base.parameter_bytes_held())

    def parameter_bytes_held(self) -> int:
        return self._base.parameter_bytes_held()

    def time_gathers(self, stopwatch: Stopwatch) -> None:
        self._base.time_gathers(stopwatch)


def load(base_dir: Path, group: Group, *, recompute: bool = False) -> FrozenBase:
    return load_base(
        base_dir,
        dtype=torch.float32,
        sharding="zero3",
        activation_checkpointing=recompute,
        trust_remote_code=False,
        group=group,
    )


def pool_around(base: FrozenBase, chosen: PoolSettings) -> Pool:
    return make_pool(chosen, base=base, data=rows_of_all_splits(), device=torch.device("cpu"))


def summary(run: Run) -> dict[str, object]:
    return {
        "losses": run.losses,
        "norms": run.norms,
        "eval_losses": run.eval_losses,
        "checkpoint": str(run.checkpoint),
        "tokens": [step.num_tokens for step in run.steps],
    }


def main(base_dir: Path, output_dir: Path) -> None:
    dist.init_process_group("gloo")
    group = distributed_group()
    base = load(base_dir, group)
    assert isinstance(base, Zero3Base)
    watched = WatchedBase(base)
    seen: dict[str, object] = {"parameter_bytes": sum(4 * p.ds_numel for p in base.module.parameters())}
    seen["num_parameters"] = len(list(base.module.parameters()))

    local = settings(output_dir / "local", workers=2, seats_per_worker=2, sharding="zero3")
    desk = train_in(pool_around(watched, local), dict(enumerate(SHORT)), local, group)
    seen["local"] = {number: summary(run) for number, run in desk.runs.items()}
    seen["tokens"] = [report.num_tokens for report in desk.reports]
    seen["held_within"], seen["held_between"] = max(watched.held_within), max(watched.held_between)

    recompute = replace(local, trials_dir=str(output_dir / "recomputed"))
    desk = train_in(pool_around(load(base_dir, group, recompute=True), recompute), {0: SHORT[0]}, recompute, group)
    seen["recomputed"] = {number: summary(run) for number, run in desk.runs.items()}

    split = settings(
        output_dir / "split",
        workers=2,
        seats_per_worker=3,
        placement="data_parallel",
        sharding="zero3",
        micro_batch_size=1,
    )
    desk = train_in(pool_around(base, split), {0: SPLIT, 2: SPLIT_ODD}, split, group)
    seen["split"] = {number: summary(run) for number, run in desk.runs.items()}

    paused = replace(split, trials_dir=str(output_dir / "paused"), report_every=6)
    desk = train_in(pool_around(base, paused), {0: SPLIT, 2: SPLIT_ODD}, paused, group, stop_after=1)
    seen["paused"] = {number: summary(run) for number, run in desk.runs.items()}
    resumed = [None]
    if group.rank == 0:
        resumed = [{number: run.checkpoint for number, run in desk.runs.items()}]
    dist.broadcast_object_list(resumed, src=0)
    desk = train_in(pool_around(base, paused), {0: SPLIT_ODD, 1: SPLIT}, paused, group, checkpoints=resumed[0])
    seen["resumed"] = {number: summary(run) for number, run in desk.runs.items()}

    seen["scores"] = scores_of_all(pool_around(base, local), local, group, desk.runs)
    for seats in (1, 8):
        seen[f"gathered_bytes_{seats}"] = gathered_bytes(base, seats, output_dir, group)
    if group.rank == 0:
        (output_dir / "seen.json").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()
    # The work is done. What Gloo's threads do at exit aborts the process now and then.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def scores_of_all(pool: Pool, chosen: PoolSettings, group: Group, runs: dict[int, Run]) -> list[dict[str, object]]:
    """Two adapters and the bare base, scored by two ranks of two seats each."""
    wanted = [Score(number=-1, adapter=None, split="test")]
    wanted += [Score(number=number, adapter=str(run.checkpoint), split="test") for number, run in runs.items()]
    answers = [Orders(score=tuple(wanted)), Orders(close=True)]
    reports = []

    def exchange(report: object) -> Orders:
        reports.append(report)
        return answers.pop(0)

    run_pool(settings=chosen, pool=pool, group=group, exchange=exchange)
    return [asdict(score) for score in reports[-1].scores] if group.rank == 0 else []


def gathered_bytes(base: FrozenBase, seats: int, output_dir: Path, group: Group) -> int:
    """Bytes of all-gathers in a round of four clocks and an evaluation, by DeepSpeed's own count."""
    from deepspeed.comm.comm import comms_logger

    chosen = settings(
        output_dir / f"seats-{seats}", workers=2, seats_per_worker=seats, report_every=4, r_max=4, sharding="zero3"
    )
    comms_logger.enabled = comms_logger.prof_all = True
    comms_logger.comms_dict.clear()
    pool = pool_around(base, chosen)
    train_in(pool, {seat: trial(seat, num_steps=4) for seat in range(2 * seats)}, chosen, group)
    records = {name: sizes for name, sizes in comms_logger.comms_dict.items() if "all_gather" in name}
    comms_logger.enabled = comms_logger.prof_all = False
    return sum(size * counts[0] for sizes in records.values() for size, counts in sizes.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
