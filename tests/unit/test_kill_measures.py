"""What the tests of kills read from a log must see a lost trial, a repeated one and work that was done again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

from tests.support.kills import KINDS, most_behind, most_repeated, seeded_kills
from tests.support.plans import HYPERPARAMETERS
from tests.support.preemption import NUM_TRIALS, REPORT_EVERY, first_report_of_pool, redone_steps

from pharos.plan.events import (
    Event,
    PoolLost,
    PoolOpened,
    RoundFinished,
    TrialCreated,
    TrialReported,
    TrialSeated,
)
from pharos.plan.trial import TrialPlan

PLAN = TrialPlan(number=0, params={}, hyperparameters=HYPERPARAMETERS, num_steps=40, clocks_per_step=1)


def numbered(events: Iterable[Event]) -> list[Event]:
    return [replace(event, sequence=index) for index, event in enumerate(events)]


def reported(steps: Sequence[int], *, time_s: float = 0.0) -> TrialReported:
    return TrialReported(
        number=0,
        step=steps[-1],
        clocks=steps[-1],
        steps=tuple({"step": step, "loss": 1.0, "num_tokens": 1} for step in steps),
        eval_metrics={},
        best_metric=None,
        best_step=None,
        best_checkpoint=None,
        checkpoint="c",
        time_s=time_s,
    )


def seated(step: int) -> TrialSeated:
    return TrialSeated(number=0, pool="pool-0", seat=0, resumed_step=step)


def finished(time_s: float) -> RoundFinished:
    return RoundFinished(
        pool="pool-0",
        round=1,
        clocks=REPORT_EVERY,
        live_seat_clocks=REPORT_EVERY,
        num_seats=4,
        num_tokens=1,
        num_padded_tokens=1,
        clocks_s=1.0,
        evaluation_s=0.0,
        checkpoint_s=0.0,
        exchange_s=0.0,
        time_s=time_s,
    )


def test_kills_of_one_seed_are_the_same_and_of_each_kind_as_many() -> None:
    kills = seeded_kills(30, seed=3)
    assert kills == seeded_kills(30, seed=3) != seeded_kills(30, seed=4)
    assert [[kill.what for kill in kills].count(kind) for kind in KINDS] == [6] * len(KINDS)


def test_a_trial_that_resumes_where_it_was_repeats_nothing() -> None:
    created = TrialCreated(number=0, trial=PLAN.to_json())
    lost = PoolLost(pool="pool-0", reason="gone", trials=(0,))
    events = numbered([created, seated(0), reported([1, 2, 3, 4]), lost, seated(4), reported([5, 6])])
    assert (most_repeated(events), most_behind(events)) == (0, 0)


def test_a_trial_that_begins_again_behind_its_log_is_seen_by_its_seat_and_by_its_steps() -> None:
    created = TrialCreated(number=0, trial=PLAN.to_json())
    events = numbered([created, seated(0), reported([1, 2, 3, 4]), seated(1), reported([2, 3]), reported([4, 5])])
    assert (most_repeated(events), most_behind(events)) == (3, 3)


def test_a_pool_that_leaves_a_node_before_it_goes_does_nothing_again() -> None:
    left = PoolLost(pool="pool-0", reason="its node ends", trials=(0,), time_s=22.0)
    events = numbered([finished(10.0), reported([1, 2], time_s=21.0), left, finished(40.0)])
    assert redone_steps(events, noticed_s=20.0, gone_s=50.0, clock_s=0.1) == 0.0
    saved = first_report_of_pool(events, 20.0)
    assert saved is not None
    assert (saved.time_s, saved.step) == (21.0, 2)


def test_a_pool_that_stays_until_its_node_goes_does_again_what_it_did_since_its_last_report() -> None:
    opened = PoolOpened(pool="pool-0", base_key="k", num_seats=4, workers=2, attempt=1, time_s=60.0)
    events = numbered([finished(10.0), opened, reported([1, 2], time_s=70.0), finished(70.0)])
    assert redone_steps(events, noticed_s=20.0, gone_s=20.0, clock_s=0.1) == NUM_TRIALS * 100
    assert redone_steps(events, noticed_s=20.0, gone_s=inf, clock_s=0.1) == NUM_TRIALS * REPORT_EVERY
    assert first_report_of_pool(events, 20.0) is None, "a report after the pool came back is none of before"
