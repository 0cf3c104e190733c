"""Two ways of training under the same seeds: how far apart they are on average, and how sure that is. Pure.

Student's t for paired samples: what one seed does to both is in both and falls out of the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import mean, stdev

from pharos.plan.metrics import is_higher_better


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """Of `ours - theirs` over pairs. interval: 95% confidence, none for a single pair.

    probability_below: that the true mean is below 0, with a flat prior on it; none for a single pair.
    """

    mean: float
    interval: tuple[float, float] | None
    probability_below: float | None

    def probability_better(self, metric: str) -> float | None:
        """That ours is better, by this metric."""
        below = self.probability_below
        return below if below is None or not is_higher_better(metric) else 1 - below


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> PairedDifference:
    """Compare two lists of scores, of the same seeds in the same order.

    Raises ValueError where they are empty, of other lengths, or hold what is not finite.
    """
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    if not differences or not all(isfinite(difference) for difference in differences):
        raise ValueError("pairs of finite scores are needed, at least one")
    average = mean(differences)
    if len(differences) < 2:
        return PairedDifference(mean=average, interval=None, probability_below=None)
    error = stdev(differences) / sqrt(len(differences))
    if error == 0:
        below = 0.5 if average == 0 else float(average < 0)
        return PairedDifference(mean=average, interval=(average, average), probability_below=below)
    from scipy.special import stdtr, stdtrit  # a tenth of a second, and only where there is something to compare

    freedom = len(differences) - 1
    margin = float(stdtrit(freedom, 0.975)) * error
    return PairedDifference(
        mean=average,
        interval=(average - margin, average + margin),
        probability_below=float(stdtr(freedom, -average / error)),
    )
