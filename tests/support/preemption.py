"""A node that is taken away in the middle of a long round, with a notice before it or without one: what that costs.

A round is one checkpoint interval. What a kill costs is read from times: the log has the time of each step that was
reported, and of those that were not the rate of the clocks before tells how many there were.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.kills import Session, wait_s
from tests.support.ray_cluster import RayCluster
from tests.support.small_sweep import Workplace, sections_of_alike_trials, wait_until

from pharos.plan.events import Event, PoolClosed, PoolLost, PoolOpened, RoundFinished, TrialEnded, TrialReported

NUM_TRIALS, NUM_STEPS, REPORT_EVERY = 4, 720, 180
NOTICE_S = 30
INTO_ROUND = 0.6
"""Of a round's clocks, how many are done when the node learns of its end, or ends."""


def sections_for_preemption() -> dict[str, Any]:
    """Four trials of four rounds each, one micro-batch a step: all are in the middle of a round when the node goes."""
    return sections_of_alike_trials(
        NUM_TRIALS,
        train={"max_steps": NUM_STEPS, "batch_size": 4, "micro_batch_size": 4, "report_every": REPORT_EVERY},
        pool={"workers": 2, "seats_per_worker": 2, "sharding": "zero3", "max_restarts": 10},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A node that went. noticed_s, gone_s: seconds since the epoch; equal where there was no notice.

    saved_s: from the notice until every trial that trained had a newer checkpoint; none: none was written. saved_at:
    the step of that checkpoint, which is none of a whole round's where the pool heeded the notice.
    redone: steps of all trials together that were done and had to be done again, steps at risk: that a round holds.
    """

    noticed_s: float
    gone_s: float
    saved_s: float | None
    saved_at: int | None
    redone: float
    at_risk: int


def take_a_node(place: Workplace, cluster: RayCluster, *, with_notice: bool) -> Taken:
    """Run the sweep and take one of its nodes away in the middle of its second round; another one comes in its place.

    Raises AssertionError where the sweep does not come to its end, or where a trial is lost.
    """
    session = Session(place)
    wait_until(lambda: has_a_round(place), f"no round: {session.said}")
    first = first_round(place.events())
    clock_s = first.clocks_s / first.clocks
    wait_s(max(0.0, first.time_s + INTO_ROUND * REPORT_EVERY * clock_s - time.time()))
    name = sorted(cluster.nodes)[-1]
    noticed_s = time.time()
    if with_notice:
        cluster.announce_end(name, deadline_s=NOTICE_S)
        cluster.add_node()
        wait_s(max(0.0, noticed_s + NOTICE_S - time.time()))
    gone_s = time.time()
    cluster.lose_node(name)
    if not with_notice:
        cluster.add_node()
    wait_until(lambda: session.returncode is not None, "the sweep did not end")
    assert session.returncode == 0, session.said
    events = place.events()
    assert sorted(event.number for event in events if isinstance(event, TrialEnded)) == list(range(NUM_TRIALS))
    saved = first_report_of_pool(events, noticed_s)
    return Taken(
        noticed_s=noticed_s,
        gone_s=gone_s,
        saved_s=None if saved is None else saved.time_s - noticed_s,
        saved_at=None if saved is None else saved.step,
        redone=redone_steps(events, noticed_s=noticed_s, gone_s=gone_s, clock_s=clock_s),
        at_risk=NUM_TRIALS * REPORT_EVERY,
    )


def has_a_round(place: Workplace) -> bool:
    return place.paths.events.is_dir() and any(isinstance(event, RoundFinished) for event in place.events())


def first_round(events: Sequence[Event]) -> RoundFinished:
    return next(event for event in events if isinstance(event, RoundFinished))


def first_report_of_pool(events: Sequence[Event], noticed_s: float) -> TrialReported | None:
    """The first report after the notice that is of the pool that was there then; none where it was lost unheard."""
    for event in events:
        if event.time_s >= noticed_s and isinstance(event, PoolOpened | PoolLost):
            return None
        if event.time_s >= noticed_s and isinstance(event, TrialReported):
            return event
    return None


def redone_steps(events: Sequence[Event], *, noticed_s: float, gone_s: float, clock_s: float) -> float:
    """Steps of all trials between the last report before the node went and its end; none if the pool had left it."""
    left = [event for event in events if isinstance(event, PoolClosed | PoolLost)]
    if any(noticed_s <= event.time_s <= gone_s for event in left):
        return 0.0
    last_s = max(event.time_s for event in events if isinstance(event, RoundFinished) and event.time_s <= gone_s)
    return NUM_TRIALS * min(REPORT_EVERY, (gone_s - last_s) / clock_s)
