"""Adapters that wait to be evaluated, in whose hands they are, and what came back. Plain values.

A pool that is lost or sent home with some of them in its hands gives them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pharos.plan.exchange import Score, ScoreReport


@dataclass(slots=True)
class Scoring:
    """asked: everything, in order. given: by pool, what it was told to evaluate and has not reported."""

    asked: list[Score] = field(default_factory=list)
    waiting: list[Score] = field(default_factory=list)
    given: dict[str, list[Score]] = field(default_factory=dict)
    reports: dict[tuple[int, str], ScoreReport] = field(default_factory=dict)

    def ask(self, scores: Iterable[Score]) -> None:
        """Begin anew."""
        self.asked = list(scores)
        self.waiting = list(self.asked)
        self.given.clear()
        self.reports.clear()

    def give(self, pool: str) -> tuple[Score, ...]:
        """What a pool has to evaluate now: all that waits, and what it was told before and does not know."""
        given = [*self.given.get(pool, []), *self.waiting]
        self.given[pool], self.waiting = given, []
        return tuple(given)

    def take(self, pool: str, reports: Sequence[ScoreReport]) -> None:
        """What a pool has evaluated."""
        done = {(report.number, report.split) for report in reports}
        self.reports.update(((report.number, report.split), report) for report in reports)
        self.given[pool] = [score for score in self.given.get(pool, []) if (score.number, score.split) not in done]

    def give_back(self, pool: str) -> None:
        """A pool is gone."""
        self.waiting += self.given.pop(pool, [])

    @property
    def result(self) -> list[ScoreReport] | None:
        """All that was asked for, in that order; none while something is missing."""
        found = [self.reports.get((score.number, score.split)) for score in self.asked]
        return None if None in found else [report for report in found if report is not None]
