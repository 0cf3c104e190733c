"""Halving decides by the scores of a round, never by the order in which they are reported."""

from __future__ import annotations

from itertools import permutations
from math import ceil, inf, nan

import pytest

from pharos.plan.halving import decide
from pharos.plan.metrics import EVAL_LOSS, Place, place

NO_ONE: frozenset[int] = frozenset()
BASELINE = frozenset({0})


def ranked(*scores: float, metric: str = EVAL_LOSS, eval_loss: float | None = None) -> list[Place]:
    return sorted(place(metric, score, eval_loss) for score in scores)


def stopped(arrivals: dict[int, float], history: tuple[float, ...] = (), *, factor: int = 2, exempt=NO_ONE) -> set[int]:
    decisions = decide(arrivals, ranked(*history), reduction_factor=factor, exempt=exempt)
    assert [decision.number for decision in decisions] == sorted(arrivals)
    return {decision.number for decision in decisions if decision.stopped}


def test_the_better_half_of_a_round_goes_on() -> None:
    assert stopped({1: 0.4, 2: 0.1, 3: 0.3, 4: 0.2}) == {1, 3}


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize(
    "scores",
    [(0.1, 0.2, 0.3, 0.4, 0.5), (0.2, 0.2, 0.2, 0.1, 0.3), (nan, 0.2, nan, 0.1, inf), (nan, nan, nan, nan, nan)],
)
def test_decisions_are_the_same_in_every_report_order(scores, factor) -> None:
    arrivals = dict(enumerate(scores))
    earlier = ranked(0.15, nan, 0.25)
    decided = decide(arrivals, earlier, reduction_factor=factor, exempt=BASELINE)
    for reported in permutations(arrivals.items()):
        assert decide(dict(reported), earlier, reduction_factor=factor, exempt=BASELINE) == decided


@pytest.mark.parametrize("num_trials", range(1, 12))
@pytest.mark.parametrize("factor", [2, 3])
def test_exactly_the_promised_number_goes_on_even_among_equals(num_trials, factor) -> None:
    for arrivals in (dict.fromkeys(range(num_trials), 0.5), {n: n / 10 for n in range(num_trials)}):
        assert num_trials - len(stopped(arrivals, factor=factor)) == ceil(num_trials / factor)


def test_equal_scores_go_to_the_earlier_round_and_then_to_the_lower_number() -> None:
    assert stopped({7: 0.5, 3: 0.5}) == {7}
    assert stopped({3: 0.5}, (0.5,)) == {3}


def test_history_is_ranked_with_the_round() -> None:
    assert stopped({5: 0.3}, (0.1, 0.2, 0.4, 0.5)) == set()
    assert stopped({5: 0.45}, (0.1, 0.2, 0.4, 0.5)) == {5}
    assert stopped({5: 0.05, 6: 0.06}, (0.1, 0.2)) == set()


def test_a_trial_alone_at_a_rung_goes_on() -> None:
    assert stopped({4: 9.9}) == set()


def test_a_score_that_is_no_number_is_the_worst() -> None:
    assert stopped({1: nan, 2: 100.0}) == {1}
    assert stopped({1: 0.3}, (nan, nan, 0.1)) == set()


def test_the_baseline_never_stops_and_takes_no_better_trials_place() -> None:
    arrivals = {0: 0.9, 1: 0.1, 2: 0.2, 3: 0.3}
    assert stopped(arrivals, exempt=BASELINE) == {3}
    assert stopped(arrivals) == {0, 3}


def test_the_reason_says_rank_and_rule() -> None:
    arrivals = {number: number / 10 for number in range(8)}
    decisions = decide(arrivals, (), rung=50, reduction_factor=2, exempt=BASELINE)
    assert decisions[5].reason == "0.5 is 6th of 8 at 50 clocks; the best 4 go on"
    assert (decisions[5].rank, decisions[5].compared, decisions[5].stopped) == (6, 8, True)
    [baseline] = decide({0: 0.9}, ranked(0.1), reduction_factor=2, exempt=BASELINE)
    assert baseline.reason == "0.9 is 2nd of 2; the best goes on, and the baseline in any case"
    [last] = decide({1: 3.0}, ranked(*(n / 10 for n in range(12))), reduction_factor=4, exempt=NO_ONE)
    assert last.reason == "3 is 13th of 13; the best 4 go on"


def test_of_a_share_more_is_better() -> None:
    earlier = ranked(0.5, metric="exact_match")
    decisions = decide({1: 0.2, 2: 0.6, 3: 0.0}, earlier, reduction_factor=2, exempt=NO_ONE, metric="exact_match")
    assert [decision.rank for decision in decisions] == [3, 1, 4]
    assert [decision.stopped for decision in decisions] == [True, False, True]


def test_equal_shares_are_told_apart_by_the_loss_beside_them() -> None:
    arrivals, losses = {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.1}, {1: 3.0, 2: 1.0, 3: nan, 4: 9.0}
    decisions = decide(
        arrivals,
        ranked(0.0, metric="exact_match", eval_loss=2.0),
        reduction_factor=2,
        exempt=NO_ONE,
        metric="exact_match",
        losses=losses,
    )
    assert [decision.rank for decision in decisions] == [4, 2, 5, 1]


def test_a_loss_that_ranks_needs_no_other_beside_it() -> None:
    without = decide({1: 0.4, 2: 0.4}, ranked(0.4), reduction_factor=2, exempt=NO_ONE)
    beside = decide({1: 0.4, 2: 0.4}, ranked(0.4), reduction_factor=2, exempt=NO_ONE, losses={1: 9.0, 2: 0.4})
    assert without == beside
