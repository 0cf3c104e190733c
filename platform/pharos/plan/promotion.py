"""Whether a candidate takes the champion's place: a paired bootstrap over the rows that both were scored on. Pure.

Rows are drawn with replacement, the same for both, and each draw gives the difference of two token-mean losses: sums
of losses and counts of tokens are drawn together, so that a long row weighs as much as it does in the loss itself
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ratio estimators). What makes a row hard for both falls
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
ROWS_AT_ONCE = 1 << 22
"""Drawn rows that are in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLosses:
    """What one model makes of each row: the sum of the losses of its trained tokens, and their number."""

    sums: Sequence[float]
    counts: Sequence[int]

    @property
    def mean(self) -> float:
        """Of all tokens, as the loss of training is."""
        return float(np.sum(self.sums) / np.sum(self.counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the same rows. difference: candidate - champion, in loss a token; below 0 the candidate is better.

    low, high: its 95% interval. probability_better: share of the resamples in which the candidate is better.
    """

    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    probability_better: float
    num_rows: int
    num_tokens: int

    @property
    def figures(self) -> str:
        return (
            f"test loss {self.candidate:.4f} against {self.champion:.4f} of the champion: {self.difference:+.4f}, "
            f"95% interval {self.low:+.4f} to {self.high:+.4f}, better with probability "
            f"{self.probability_better:.1%}, on {self.num_rows} test rows"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether to promote, and why, in words that stand alone."""

    promotes: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a promotion or a roll-back came to. before: the champion until now; champion: the one from now on.

    settled: what crashed commands had left, each in a sentence.
    """

    model: str
    version: str
    before: str | None
    champion: str | None
    reason: str
    comparison: Comparison | None = None
    settled: tuple[str, ...] = ()
    forced: bool = False

    @property
    def is_champion(self) -> bool:
        return self.champion == self.version


def compare(
    candidate: RowLosses, champion: RowLosses, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Comparison:
    """Compare two models' losses on the same rows, in the same order.

    Raises ValueError where there is no row, where the numbers of rows differ, or where a row has no token or a loss
    that is not finite.
    """
    columns = np.array([candidate.sums, candidate.counts, champion.sums, champion.counts], dtype=np.float64).T
    if not len(columns) or not np.isfinite(columns).all() or not (columns[:, [1, 3]] > 0).all():
        raise ValueError("rows are needed, each with a trained token and a finite loss of both models")
    differences = np.concatenate(
        [_difference(weights @ columns) for weights in _draws(len(columns), num_resamples, seed)]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Comparison(
        candidate=candidate.mean,
        champion=champion.mean,
        difference=candidate.mean - champion.mean,
        low=float(low),
        high=float(high),
        probability_better=float(np.mean(differences < 0) + np.mean(differences == 0) / 2),
        num_rows=len(columns),
        num_tokens=int(sum(candidate.counts)),
    )


def decide(comparison: Comparison | None, *, margin: float | None = None) -> Verdict:
    """Promote a candidate that is better for sure, or not worse by `margin` for sure, or that has no one to beat.

    comparison: none where there is no champion. margin: in loss a token; none: the candidate must be better.
    """
    if comparison is None:
        return Verdict(promotes=True, reason="there was no champion")
    figures = comparison.figures
    if comparison.high < 0:
        return Verdict(promotes=True, reason=f"better: {figures}")
    if margin is not None and comparison.high < margin:
        return Verdict(promotes=True, reason=f"not worse by {margin:g}: {figures}")
    if comparison.low > 0:
        return Verdict(promotes=False, reason=f"worse: {figures}")
    if margin is not None:
        return Verdict(promotes=False, reason=f"it may be worse by {margin:g} or more: {figures}")
    return Verdict(promotes=False, reason=f"not surely better: {figures}")


def _draws(num_rows: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is in each resample, some resamples at a time: float64 (some, num_rows)."""
    generator = np.random.default_rng(seed)
    step = max(1, ROWS_AT_ONCE // num_rows)
    sizes = [min(step, num_resamples - first) for first in range(0, num_resamples, step)]
    for size in sizes:
        yield _weights(generator, size, num_rows)


def _weights(generator: np.random.Generator, num_resamples: int, num_rows: int) -> np.ndarray:
    drawn = generator.integers(0, num_rows, (num_resamples, num_rows))
    drawn += np.arange(num_resamples)[:, None] * num_rows
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_rows)
    return counts.reshape(num_resamples, num_rows).astype(np.float64)


def _difference(sums: np.ndarray) -> np.ndarray:
    """candidate - champion of each resample. sums: (N, 4), the columns of `compare` added up."""
    difference: np.ndarray = sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
    return difference
