"""What the page tells, taken from a sweep's events once, so that no figure reads the log by itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pharos.errors import StorageError
from pharos.plan import events as ev
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.trial import BASELINE, trial_name

WIDE_RANGE = 20.0
"""From this ratio of largest to smallest on, an axis of positive numbers is logarithmic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFacts:
    """A sweep as far as its log goes.

    space: domain by searched field, as the spec's JSON has it: {"lora.r": {"ordered": [4, 8]}}; empty without a search.
    evaluations: for each trial its finite (step, metric) in the order of steps.
    """

    name: str
    metric: str
    events: Sequence[ev.Event]
    ledger: Ledger
    started: ev.SweepStarted
    space: Mapping[str, Mapping[str, Sequence[Any]]]
    evaluations: Mapping[int, Sequence[tuple[int, float]]]

    @property
    def state(self) -> str:
        """COMPLETED, STOPPED or FAILED; RUNNING where the log has no end: it runs, or it was killed."""
        return self.ledger.ended.state if self.ledger.ended else "RUNNING"

    @property
    def best(self) -> TrialRecord | None:
        return self.ledger.best()

    @property
    def baseline(self) -> TrialRecord | None:
        return self.ledger.trials.get(BASELINE)

    @property
    def is_search(self) -> bool:
        return bool(self.space) and self.started.num_trials > 1

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
        started=started,
        space=search.get("space") or {},
        evaluations={
            number: [
                (step, metrics[started.metric])
                for step, metrics in sorted(trial.evaluations.items())
                if isfinite(metrics.get(started.metric, float("nan")))
            ]
            for number, trial in sorted(ledger.trials.items())
        },
    )


def is_wide(values: Sequence[float]) -> bool:
    """Whether the values are told apart better on a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > WIDE_RANGE
