"""A sweep on a cluster that begins with one node, may have four, and goes back to one: what came and went, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.support.autoscaling import AutoscalingCluster
from tests.support.kills import Session
from tests.support.small_sweep import Workplace, sections_of_alike_trials, wait_until

from pharos.plan.events import PoolOpened, TrialEnded

NUM_TRIALS, MAX_NODES = 12, 4
PATIENCE_S = 600
AFTER_IDLE_S = 60


def sections_for_growing() -> dict[str, Any]:
    """Pools of one worker of one CPU, so that each further pool is a further node; trials of some seconds."""
    return sections_of_alike_trials(
        NUM_TRIALS,
        train={"max_steps": 500, "batch_size": 4, "micro_batch_size": 4, "report_every": 100},
        pool={"workers": 1, "seats_per_worker": 1, "count": {"min": 1, "max": MAX_NODES}},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """seen: (seconds, worker nodes) at each change of their number. gone_s: from the command's end to one node.

    pools: that were opened. ended: numbers of the trials that ended, one entry for each end.
    """

    seen: tuple[tuple[float, int], ...]
    most_nodes: int
    sweep_s: float
    gone_s: float
    pools: tuple[str, ...]
    ended: tuple[int, ...]


def grow_and_shrink(place: Workplace, cluster: AutoscalingCluster) -> Grown:
    """Raises AssertionError where the sweep fails or the nodes stay longer than their idle timeout and a minute."""
    began_s = time.monotonic()
    session = Session(place)

    def is_over() -> bool:
        cluster.num_workers()
        return session.returncode is not None

    wait_until(is_over, "the sweep did not end", timeout_s=PATIENCE_S)
    assert session.returncode == 0, session.said
    ended_s = time.monotonic()
    wait_until(
        lambda: cluster.num_workers() == 1,
        f"nodes stayed: {cluster.seen}",
        timeout_s=cluster.idle_timeout_s + AFTER_IDLE_S,
    )
    gone_s = time.monotonic() - ended_s
    events = place.events()
    return Grown(
        seen=tuple(cluster.seen),
        most_nodes=max(number for _, number in cluster.seen),
        sweep_s=ended_s - began_s,
        gone_s=gone_s,
        pools=tuple(event.pool for event in events if isinstance(event, PoolOpened)),
        ended=tuple(event.number for event in events if isinstance(event, TrialEnded)),
    )
