"""A node that goes in the middle of a round, as spot machines do: with 30 seconds' notice, and without any.

With the notice the pool writes its checkpoints and leaves before the node ends, so that next to nothing is done again.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.reporting import Options, Report, Table, Target
from tests.support.preemption import (
    NOTICE_S,
    NUM_TRIALS,
    REPORT_EVERY,
    Taken,
    sections_for_preemption,
    take_a_node,
)
from tests.support.ray_cluster import ray_cluster
from tests.support.small_sweep import workplace, write_base

LEAST_SAVED = 0.8
ROOT = Path(__file__).parents[2]


def run(options: Options) -> Report:
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as directory:
        base = write_base(Path(directory, "base"))
        without = one_sweep(Path(directory, "without"), base, with_notice=False)
        told = one_sweep(Path(directory, "with"), base, with_notice=True)
    return Report(
        settings={
            "trials": NUM_TRIALS,
            "clocks of a round": REPORT_EVERY,
            "notice_s": NOTICE_S,
            "smoke": options.smoke,
        },
        tables=[Table(title="steps of all trials", rows=[row("without a notice", without), row("with it", told)])],
        quality={
            "every trial ended once": True,
            "without": asdict(without),
            "with": asdict(told),
        },
        targets=[
            Target(
                what="share of the steps that the notice saved",
                measured=1 - told.redone / without.redone,
                limit=LEAST_SAVED,
            ),
            Target(
                what="seconds from the notice to the checkpoints",
                measured=NOTICE_S * 10 if told.saved_s is None else told.saved_s,
                limit=NOTICE_S,
                at_most=True,
            ),
        ],
        notes=["steps that were done and not reported are told by their time and the rate of the round before"],
    )


def one_sweep(root: Path, base: Path, *, with_notice: bool) -> Taken:
    root.mkdir()
    place = workplace(root, base, **sections_for_preemption())
    place.environment["PYTHONPATH"] = str(ROOT / "platform")
    with ray_cluster(place, num_nodes=2) as cluster:
        return take_a_node(place, cluster, with_notice=with_notice)


def row(what: str, taken: Taken) -> dict[str, Any]:
    return {
        "node went": what,
        "done again": round(taken.redone),
        "of a round": taken.at_risk,
        "s from notice to checkpoints": None if taken.saved_s is None else round(taken.saved_s, 1),
    }
