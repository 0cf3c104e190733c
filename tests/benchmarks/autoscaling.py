"""A sweep on a cluster that Ray's real autoscaler grows from one node to four while trials wait, and shrinks to one.

The nodes are raylets with one declared CPU each on one machine, so nothing gets faster here: what counts is that each
trial ends once, that the nodes come, and that they go within their idle timeout and a minute.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.benchmarks.reporting import Options, Report, Table, Target
from tests.support.autoscaling import autoscaling_cluster
from tests.support.growing import AFTER_IDLE_S, MAX_NODES, NUM_TRIALS, grow_and_shrink, sections_for_growing
from tests.support.small_sweep import workplace, write_base

ROOT = Path(__file__).parents[2]
IDLE_TIMEOUT_S = 15


def run(options: Options) -> Report:
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as directory:
        base, root = write_base(Path(directory, "base")), Path(directory, "sweep")
        root.mkdir()
        place = workplace(root, base, **sections_for_growing())
        place.environment["PYTHONPATH"] = str(ROOT / "platform")
        with autoscaling_cluster(place, min_workers=1, max_workers=MAX_NODES, idle_timeout_s=IDLE_TIMEOUT_S) as cluster:
            grown = grow_and_shrink(place, cluster)
    return Report(
        settings={"trials": NUM_TRIALS, "idle timeout, s": IDLE_TIMEOUT_S, "smoke": options.smoke},
        tables=[
            Table(title="worker nodes", rows=[{"at s": at_s, "nodes": number} for at_s, number in grown.seen]),
        ],
        quality={
            "every trial ended once": sorted(grown.ended) == list(range(NUM_TRIALS)),
            "pools": list(grown.pools),
            "the sweep, s": round(grown.sweep_s, 1),
        },
        targets=[
            Target(what="nodes at the most", measured=grown.most_nodes, limit=MAX_NODES),
            Target(what="trials that ended once", measured=len(set(grown.ended)), limit=NUM_TRIALS),
            Target(what="ends of trials", measured=len(grown.ended), limit=NUM_TRIALS, at_most=True),
            Target(
                what="s from the sweep's end to one node",
                measured=round(grown.gone_s, 1),
                limit=IDLE_TIMEOUT_S + AFTER_IDLE_S,
                at_most=True,
            ),
        ],
    )
