"""Seeded kills of workers, nodes, a pool's controller, the desk and the driver, over sweeps of 12 trials on a cluster.

After all of them: no trial lost, none twice, no more work done again than one checkpoint interval a loss, and each
trial's curve is the one that it has alone. Small models: what is tested is the coming back, not the training.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.reporting import Options, Report, Table, Target
from tests.support.kills import (
    KINDS,
    NUM_STEPS,
    NUM_TRIALS,
    REPORT_EVERY,
    Cost,
    Kill,
    Killed,
    KilledSweep,
    cost_of,
    sections_for_kills,
    seeded_kills,
)
from tests.support.ray_cluster import ray_cluster
from tests.support.small_sweep import Alone, workplace, write_base

NUM_KILLS, KILLS_OF_SWEEP = 30, 5
CURVE_TOLERANCE = 1e-5


def run(options: Options) -> Report:
    number = 2 if options.smoke else options.number or NUM_KILLS
    planned = seeded_kills(number, options.seed)
    done: list[tuple[list[Killed], Cost, int]] = []
    known: dict[str, Alone] = {}
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as directory:
        base = write_base(Path(directory, "base"))
        for index, first in enumerate(range(0, number, KILLS_OF_SWEEP)):
            kills = planned[first : first + KILLS_OF_SWEEP]
            root = Path(directory, f"sweep-{index}")
            root.mkdir()
            done.append(one_sweep(root, base, kills, known))
            print(f"sweep {index}: {[asdict(killed) for killed in done[-1][0]]} {done[-1][1]}", flush=True)
            shutil.rmtree(root, ignore_errors=True)
    return report(options, done)


def one_sweep(root: Path, base: Path, kills: Sequence[Kill], known: dict[str, Alone]) -> tuple[list[Killed], Cost, int]:
    place = workplace(root, base, **sections_for_kills())
    place.environment["PYTHONPATH"] = str(Path(__file__).parents[2] / "platform")
    with ray_cluster(place, num_nodes=2) as cluster:
        sweep = KilledSweep(place=place, cluster=cluster)
        sweep.run(kills)
    return sweep.kills, cost_of(place, scratch=root, known=known), len(sweep.sessions)


def report(options: Options, done: Sequence[tuple[list[Killed], Cost, int]]) -> Report:
    kills = [killed for of_sweep, _, _ in done for killed in of_sweep]
    costs = [cost for _, cost, _ in done]
    apart = [difference for cost in costs for difference in cost.apart]
    most_repeated = max(max(cost.repeated, cost.behind) for cost in costs)
    return Report(
        settings={
            "seed": options.seed,
            "sweeps": len(done),
            "trials of a sweep": NUM_TRIALS,
            "steps of a trial": NUM_STEPS,
            "clocks between checkpoints": REPORT_EVERY,
        },
        tables=[
            Table(title="kills that happened", rows=[by_kind(kind, kills) for kind in KINDS]),
            Table(title="each sweep", rows=[of_sweep(index, *each) for index, each in enumerate(done)]),
        ],
        quality={
            "kills": [
                asdict(killed.kill) | {"back_s": killed.back_s, "ended": killed.ended, "lines said": killed.num_said}
                for killed in kills
            ],
            "furthest of any number of a trial from the same trial alone, by trial": sorted(apart)[-5:],
        },
        targets=[
            Target(what="kills", measured=len(kills), limit=options.number or NUM_KILLS),
            Target(what="trials lost", measured=sum(cost.lost for cost in costs), limit=0, at_most=True),
            Target(what="trials twice", measured=sum(cost.duplicated for cost in costs), limit=0, at_most=True),
            Target(
                what="steps of the log done again, at most", measured=most_repeated, limit=REPORT_EVERY, at_most=True
            ),
            Target(what="furthest from a trial alone", measured=max(apart), limit=CURVE_TOLERANCE, at_most=True),
        ],
        notes=[
            "a round that was not reported yet is done again too: that is one checkpoint interval, and not in the log"
        ],
    )


def by_kind(kind: str, kills: Sequence[Killed]) -> dict[str, Any]:
    of_kind = [killed for killed in kills if killed.kill.what == kind]
    back = [killed.back_s for killed in of_kind if killed.back_s is not None]
    return {
        "killed": kind,
        "times": len(of_kind),
        "trials that ran then": sum(killed.trials_running for killed in of_kind),
        "ended the command": sum(killed.ended is not None or kind == "driver" for killed in of_kind),
        "s to the next round, median": median(back) if back else None,
        "at most": max(back, default=None),
    }


def of_sweep(index: int, kills: Sequence[Killed], cost: Cost, sessions: int) -> dict[str, Any]:
    return {
        "sweep": index,
        "killed": ", ".join(killed.kill.what for killed in kills),
        "commands": sessions,
        "lost": cost.lost,
        "twice": cost.duplicated,
        "steps again in the log": max(cost.repeated, cost.behind),
        "furthest from alone": max(cost.apart),
    }
