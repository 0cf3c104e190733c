"""How long a trial sat in seats: from events, whatever is lost, and whatever is taken twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pharos.plan import events as ev
from pharos.plan.seat_time import SeatTime

Counted = ev.TrialSeated | ev.TrialReported | ev.TrialEnded | ev.PoolLost


def seated(time_s: float) -> ev.TrialSeated:
    return ev.TrialSeated(number=1, pool="pool-0", seat=0, resumed_step=0, time_s=time_s)


def reported(time_s: float) -> ev.TrialReported:
    return ev.TrialReported(
        number=1,
        step=1,
        clocks=1,
        steps=(),
        eval_metrics={},
        best_metric=None,
        best_step=None,
        best_checkpoint=None,
        checkpoint=None,
        time_s=time_s,
    )


def ended(time_s: float) -> ev.TrialEnded:
    return ev.TrialEnded(number=1, state="COMPLETED", reason="", score=None, step=1, time_s=time_s)


def lost(time_s: float) -> ev.PoolLost:
    return ev.PoolLost(pool="pool-0", reason="", trials=(1,), time_s=time_s)


def seat_s(events: Sequence[Counted], seat_time: SeatTime | None = None) -> float:
    seat_time = seat_time or SeatTime()
    for event in events:
        seat_time.apply(event)
    return seat_time.seat_s


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], 0),
        ([seated(100)], 0),
        ([seated(100), reported(130)], 30),
        ([seated(100), reported(130), reported(170), ended(175)], 75),
        ([seated(100), ended(110)], 10),
        ([seated(100), reported(130), lost(140), seated(200), reported(220), ended(221)], 40 + 21),
        ([seated(100), reported(130), seated(1000), reported(1030), ended(1030)], 30 + 30),
        ([seated(100), lost(140), lost(150)], 40),
        ([seated(100), ended(110), reported(120)], 10),
    ],
    ids=[
        "nothing",
        "only seated",
        "still running",
        "to its end",
        "without a report",
        "a pool that was lost",
        "a driver that died without a word",
        "a pool lost while it waited",
        "a report after its end",
    ],
)
def test_only_time_in_a_seat_counts(events: Sequence[Counted], expected: float) -> None:
    assert seat_s(events) == expected


def test_events_taken_again_add_nothing() -> None:
    events = [seated(100), reported(130), lost(140), seated(200), reported(220), ended(221)]
    for already in range(1, len(events) + 1):
        seat_time = SeatTime()
        seat_s(events[:already], seat_time)
        again = SeatTime(seat_s=seat_time.seat_s, until_s=seat_time.until_s, is_seated=seat_time.is_seated)
        assert seat_s(events, again) == 61
