"""Seeded kills of workers, nodes, a pool's controller, the desk and the driver, over sweeps of 12 trials on a cluster.

After all of them: no trial lost, none twice, no more work done again than one checkpoint interval a loss, and each
trial's curve is the one that it has alone. Small models: what is tested is the coming back, not the training.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.reporting import Options, Report, Table, Target
from tests.support.kills import (
    KINDS,
    NUM_STEPS,
    NUM_TRIALS,
    ONE_POOL_OVER_TWO_NODES,
    REPORT_EVERY,
    TWO_POOLS,
    Cost,
    Kill,
    Killed,
    KilledSweep,
    cost_of,
    sections_for_kills,
    seeded_kills,
)
from tests.support.ray_cluster import ray_cluster
from tests.support.small_sweep import Alone, Workplace, workplace, write_base

NUM_KILLS, KILLS_OF_SWEEP = 30, 5
POOLS = (ONE_POOL_OVER_TWO_NODES, TWO_POOLS)
CURVE_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One sweep. cost: none where it could not be brought to its end, for the reason in `failure`."""

    kills: Sequence[Killed]
    num_commands: int
    cost: Cost | None = None
    failure: str = ""


def run(options: Options) -> Report:
    number = 2 if options.smoke else options.number or NUM_KILLS
    left = seeded_kills(number, options.seed)
    most_sweeps = 3 * -(-number // KILLS_OF_SWEEP)
    outcomes: list[Outcome] = []
    known: dict[str, Alone] = {}
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as directory:
        base = write_base(Path(directory, "base"))
        while left and len(outcomes) < most_sweeps:
            index = len(outcomes)
            root = Path(directory, f"sweep-{index}")
            root.mkdir()
            place = workplace(root, base, **sections_for_kills(POOLS[index % len(POOLS)]))
            place.environment["PYTHONPATH"] = str(Path(__file__).parents[2] / "platform")
            outcome = kill_sweep(place, left[:KILLS_OF_SWEEP])
            if not outcome.failure:
                outcome = replace(outcome, cost=cost_of(place, scratch=root, known=known))
            outcomes.append(outcome)
            print(f"sweep {index}: {of_sweep(index, outcome)}", flush=True)
            # A sweep may come to its end before all its kills; the next one has what is left of them.
            happened = [killed.kill for killed in outcome.kills]
            left = [kill for kill in left if kill not in happened]
            shutil.rmtree(root, ignore_errors=True)
    return report(options, number, outcomes)


def kill_sweep(place: Workplace, kills: Sequence[Kill]) -> Outcome:
    """Run a sweep through its kills."""
    with ray_cluster(place, num_nodes=2) as cluster:
        sweep = KilledSweep(place=place, cluster=cluster)
        try:
            sweep.run(kills)
        except AssertionError as error:
            return Outcome(kills=sweep.kills, num_commands=len(sweep.sessions), failure=str(error) or "it failed")
    return Outcome(kills=sweep.kills, num_commands=len(sweep.sessions))


def report(options: Options, number: int, outcomes: Sequence[Outcome]) -> Report:
    kills = [killed for outcome in outcomes for killed in outcome.kills]
    costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    unfinished = len(outcomes) - len(costs)
    apart = sorted((difference for cost in costs for difference in cost.apart), reverse=True)
    again = max((max(cost.repeated, cost.behind) for cost in costs), default=0)
    return Report(
        settings={
            "seed": options.seed,
            "sweeps": len(outcomes),
            "trials of a sweep": NUM_TRIALS,
            "steps of a trial": NUM_STEPS,
            "clocks between checkpoints": REPORT_EVERY,
            "pools, in turns": [dict(pools) for pools in POOLS],
        },
        tables=[
            Table(title="kills that happened", rows=[by_kind(kind, kills) for kind in KINDS]),
            Table(title="each sweep", rows=[of_sweep(index, each) for index, each in enumerate(outcomes)]),
            Table(
                title="each kill", rows=[of_kill(index, each) for index, of in enumerate(outcomes) for each in of.kills]
            ),
        ],
        quality={"furthest of any number of a trial from the same trial alone, the five furthest": apart[:5]},
        targets=[
            Target(what="kills", measured=len(kills), limit=number),
            Target(what="sweeps that did not end", measured=unfinished, limit=0, at_most=True),
            Target(what="trials lost", measured=sum(cost.lost for cost in costs), limit=0, at_most=True),
            Target(what="trials twice", measured=sum(cost.duplicated for cost in costs), limit=0, at_most=True),
            Target(what="steps of the log done again, at most", measured=again, limit=REPORT_EVERY, at_most=True),
            Target(
                what="furthest from a trial alone",
                measured=apart[0] if apart else inf,
                limit=CURVE_TOLERANCE,
                at_most=True,
            ),
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


def of_sweep(index: int, outcome: Outcome) -> dict[str, Any]:
    cost = outcome.cost
    return {
        "sweep": index,
        "killed": ", ".join(killed.kill.what for killed in outcome.kills),
        "commands": outcome.num_commands,
        "lost": None if cost is None else cost.lost,
        "twice": None if cost is None else cost.duplicated,
        "steps again in the log": None if cost is None else max(cost.repeated, cost.behind),
        "furthest from alone": None if cost is None else max(cost.apart),
        "failure": outcome.failure,
    }


def of_kill(index: int, killed: Killed) -> dict[str, Any]:
    return {
        "sweep": index,
        "killed": killed.kill.what,
        "after rounds": killed.kill.after_rounds,
        "and s": round(killed.kill.delay_s, 2),
        "at event": killed.at_event,
        "trials that ran": killed.trials_running,
        "s to the next round": killed.back_s,
    }
