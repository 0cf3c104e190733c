"""Differences of paired scores against scipy's own t-test."""

from __future__ import annotations

from math import nan

import pytest
from scipy import stats

from pharos.plan.paired import paired_difference

OURS = [0.52, 0.48, 0.55, 0.50]
THEIRS = [0.60, 0.49, 0.58, 0.61]


def test_mean_interval_and_probability_are_those_of_a_paired_t_test() -> None:
    found = paired_difference(OURS, THEIRS)
    reference = stats.ttest_rel(OURS, THEIRS, alternative="less")
    both_sides = stats.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert found.mean == pytest.approx(sum(OURS) / 4 - sum(THEIRS) / 4)
    assert found.interval == pytest.approx((both_sides.low, both_sides.high))
    assert found.probability_below == pytest.approx(1 - reference.pvalue)


def test_a_spread_that_both_share_does_not_count() -> None:
    apart = [score + shift for score, shift in zip(OURS, [0, 5, -3, 9], strict=True)]
    found = paired_difference(apart, [score + 0.1 for score in apart])
    assert found.probability_below is not None
    assert found.probability_below > 0.999


@pytest.mark.parametrize(("difference", "probability"), [(-0.1, 1.0), (0.0, 0.5), (0.1, 0.0)])
def test_the_same_difference_under_every_seed_leaves_no_doubt(difference: float, probability: float) -> None:
    found = paired_difference([1 + difference, 1 + difference], [1.0, 1.0])
    assert found.probability_below == probability
    assert found.interval == (found.mean, found.mean)


def test_one_pair_says_nothing_of_its_spread() -> None:
    found = paired_difference([1.0], [3.0])
    assert (found.mean, found.interval, found.probability_below) == (-2.0, None, None)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [nan]), ([1.0, 2.0], [1.0])])
def test_what_is_no_pair_of_finite_scores_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs of finite scores|zip\(\) argument"):
        paired_difference(ours, theirs)
