"""Who is promoted: figures against a plain loop and scipy's bootstrap, and what the interval must say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pharos.plan.promotion import Comparison, RowLosses, compare, decide


def rows(num_rows: int, *, shift: float, noise: float, seed: int = 1) -> tuple[RowLosses, RowLosses]:
    """A candidate and a champion on rows of very different difficulty; the candidate's losses lie `shift` apart."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 60, num_rows)
    hardness = generator.gamma(2, 1, num_rows)
    champion = hardness * counts
    candidate = champion + counts * (shift + noise * generator.standard_normal(num_rows))
    return RowLosses(sums=candidate, counts=counts), RowLosses(sums=champion, counts=counts)


def test_the_losses_are_means_over_tokens() -> None:
    found = compare(RowLosses(sums=[1.0, 9.0], counts=[1, 9]), RowLosses(sums=[4.0, 9.0], counts=[1, 9]))
    assert found.candidate == pytest.approx(1.0)
    assert found.champion == pytest.approx(1.3)
    assert found.difference == pytest.approx(-0.3)
    assert (found.num_rows, found.num_tokens) == (2, 10)


def test_interval_and_probability_are_those_of_a_plain_bootstrap() -> None:
    candidate, champion = rows(80, shift=-0.05, noise=0.4)
    found = compare(candidate, champion)

    def difference(sums: np.ndarray, counts: np.ndarray, other: np.ndarray) -> float:
        return (sums.sum() - other.sum()) / counts.sum()

    reference = stats.bootstrap(
        (candidate.sums, candidate.counts, champion.sums),
        difference,
        paired=True,
        vectorized=False,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(7),
    )
    width = found.high - found.low
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=width / 20)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=width / 20)
    assert found.probability_better == pytest.approx(np.mean(reference.bootstrap_distribution < 0), abs=0.02)


def test_pairing_sees_a_small_difference_between_rows_of_any_difficulty() -> None:
    candidate, champion = rows(400, shift=-0.02, noise=0.05)
    assert compare(candidate, champion).high < 0
    shuffled = np.random.default_rng(0).permutation(400)
    unpaired = RowLosses(sums=np.array(champion.sums)[shuffled], counts=np.array(champion.counts)[shuffled])
    assert compare(candidate, unpaired).high > 0


def test_the_same_rows_give_the_same_figures_however_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, champion = rows(50, shift=0.1, noise=0.4)
    first = compare(candidate, champion)
    assert compare(candidate, champion) == first
    monkeypatch.setattr("pharos.plan.promotion.ROWS_AT_ONCE", 999)
    pieces = compare(candidate, champion)
    assert (pieces.low, pieces.high) == pytest.approx((first.low, first.high), rel=1e-9)
    assert compare(candidate, champion, seed=1).low != pytest.approx(first.low, rel=1e-9)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        found = compare(*rows(100, shift=0.05, noise=0.5, seed=seed), num_resamples=500)
        covered += found.low < 0.05 < found.high
    assert 0.88 < covered / 200 < 0.99


def test_a_model_against_itself_is_not_better_and_not_worse_by_any_margin() -> None:
    candidate, _ = rows(30, shift=0, noise=0)
    found = compare(candidate, candidate)
    assert (found.difference, found.low, found.high, found.probability_better) == (0, 0, 0, 0.5)
    assert not decide(found).promotes
    assert decide(found, margin=0.001).promotes


@pytest.mark.parametrize(
    ("low", "high", "margin", "promotes", "word"),
    [
        (-0.3, -0.1, None, True, "better"),
        (-0.3, -0.1, 0.05, True, "better"),
        (-0.3, 0.01, None, False, "not surely better"),
        (-0.3, 0.01, 0.02, True, "not worse by 0.02"),
        (-0.3, 0.02, 0.02, False, "it may be worse by 0.02 or more"),
        (0.1, 0.3, None, False, "worse"),
        (0.1, 0.3, 0.2, False, "worse"),
        (0.1, 0.3, 0.4, True, "not worse by 0.4"),
    ],
)
def test_the_end_of_the_interval_decides(
    low: float, high: float, margin: float | None, promotes: bool, word: str
) -> None:
    found = Comparison(
        candidate=1.0,
        champion=1.1,
        difference=-0.1,
        low=low,
        high=high,
        probability_better=0.9,
        num_rows=70,
        num_tokens=700,
    )
    verdict = decide(found, margin=margin)
    assert verdict.promotes is promotes
    assert verdict.reason.startswith(f"{word}: test loss 1.0000 against 1.1000 of the champion: -0.1000")
    assert verdict.reason.endswith("on 70 test rows")


def test_without_a_champion_there_is_no_one_to_beat() -> None:
    assert decide(None).promotes


@pytest.mark.parametrize("sums", [[], [1.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_rows_that_cannot_be_compared_are_refused(sums: list[float]) -> None:
    with pytest.raises(ValueError, match="rows|shape"):
        compare(RowLosses(sums=sums, counts=[1] * len(sums)), RowLosses(sums=[1.0, 2.0], counts=[1, 0]))
