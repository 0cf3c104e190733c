"""What the page tells, taken from a sweep's events once, so that no figure reads the log by itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from pharos.errors import StorageError
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.metrics import EVAL_LOSS, is_higher_better
from pharos.plan.trial import BASELINE, trial_name

Curves = Mapping[int, Sequence[tuple[int, float]]]
"""By trial its (step, value)."""
WIDE_RANGE = 20.0
"""From this ratio of largest to smallest on, an axis of positive numbers is logarithmic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFacts:
    """A sweep as far as its log goes.

    space: domain by searched field, as the spec's JSON has it: {"lora.r": {"ordered": [4, 8]}}; empty without a search.
    evaluations: for each trial its finite (step, metric) in the order of steps; losses: the same of eval_loss, which
    is evaluated more often than what needs generated answers.
    """

    name: str
    metric: str
    events: Sequence[ev.Event]
    ledger: Ledger
    best: TrialRecord | None
    has_one_step_length: bool
    started: ev.SweepStarted
    space: Mapping[str, Mapping[str, Sequence[Any]]]
    evaluations: Curves
    losses: Curves

    @property
    def state(self) -> str:
        """COMPLETED, STOPPED or FAILED; RUNNING where the log has no end: it runs, or it was killed."""
        return self.ledger.ended.state if self.ledger.ended else "RUNNING"

    @property
    def baseline(self) -> TrialRecord | None:
        return self.ledger.trials.get(BASELINE)

    @property
    def is_search(self) -> bool:
        return bool(self.space) and self.started.num_trials > 1

    @property
    def is_higher_better(self) -> bool:
        return is_higher_better(self.metric)

    def shown(self, score: float | None) -> str:
        """A score as its metric is written: a loss with four digits, a share in per cent."""
        return words.metric(self.metric, score)

    def change(self, ours: float | None, theirs: float | None) -> str:
        """12.5% lower of a loss, 3.2 points higher of a share, else the difference; empty where one is missing."""
        if ours is None or theirs is None or (not theirs and not self.is_higher_better):
            return ""
        word = "higher" if ours > theirs else "lower"
        if self.is_higher_better:
            by = abs(ours - theirs)
            return f"{by * 100:.1f} points {word}" if self.shown(by).endswith("%") else f"{by:.4f} {word}"
        return f"{abs(ours / theirs - 1):.1%} {word}"

    def trial_name(self, number: int) -> str:
        return trial_name(self.name, number)

    def others(self) -> list[TrialRecord]:
        """All trials but the winner and the baseline, by number."""
        told_apart = {BASELINE, self.best.number if self.best else BASELINE}
        return [trial for number, trial in sorted(self.ledger.trials.items()) if number not in told_apart]


def sweep_facts(events: Sequence[ev.Event], ledger: Ledger) -> SweepFacts:
    """Raises StorageError where the log does not hold the start of a sweep."""
    started = ledger.started
    if started is None:
        raise StorageError("the event log does not say that a sweep was started, so there is nothing to report.")
    search = started.spec.get("search") or {}
    return SweepFacts(
        name=started.sweep,
        metric=started.metric,
        events=events,
        ledger=ledger,
        best=ledger.best(),
        has_one_step_length=len({trial.plan.clocks_per_step for trial in ledger.trials.values()}) <= 1,
        started=started,
        space=search.get("space") or {},
        evaluations=_curves(ledger, started.metric),
        losses=_curves(ledger, EVAL_LOSS),
    )


def is_wide(values: Sequence[float]) -> bool:
    """Whether the values are told apart better on a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > WIDE_RANGE


def _curves(ledger: Ledger, metric: str) -> Curves:
    return {
        number: [
            (step, metrics[metric])
            for step, metrics in sorted(trial.evaluations.items())
            if isfinite(metrics.get(metric, nan))
        ]
        for number, trial in sorted(ledger.trials.items())
    }
