"""How far a sweep is, as a value: folded from its events, shown to a person, or carried in a line of a job's log.

A cluster's jobs API hands out nothing but the output of a job. So a sweep that runs as one prints, now and then, a line
for programs between those for people. Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pharos.plan.ledger import Ledger

MARK = "pharos-status "
"""How such a line begins; the rest is one JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStatus:
    """A sweep at `time_s`, the time of its last event (seconds since the epoch; 0 before the first).

    started_s, session_s: when it began, and when it was last resumed. trials: number of trials by state; those of
    `num_trials` that are missing do not exist yet. best: number of the leading trial. ended: COMPLETED, STOPPED or
    FAILED, none while it goes on or was broken off.
    """

    sweep: str
    time_s: float = 0.0
    started_s: float = 0.0
    session_s: float = 0.0
    num_trials: int = 0
    trials: Mapping[str, int] = field(default_factory=dict)
    metric: str = "eval_loss"
    best: int | None = None
    best_score: float | None = None
    baseline_score: float | None = None
    restarts: int = 0
    phase: str = ""
    model: str | None = None
    ended: str | None = None
    reason: str = ""

    @property
    def num_final(self) -> int:
        return sum(number for state, number in self.trials.items() if state not in ("WAITING", "RUNNING"))


def status_of(ledger: Ledger, *, sweep: str, phase: str = "") -> SweepStatus:
    """The status that a sweep's events come to. phase: what its driver is at."""
    started, best = ledger.started, ledger.best()
    baseline = ledger.trials.get(0)
    registered, ended = ledger.registered, ledger.ended
    return SweepStatus(
        sweep=sweep,
        time_s=ledger.last_time_s or 0.0,
        started_s=ledger.first_time_s or 0.0,
        session_s=0.0 if started is None else started.time_s,
        num_trials=0 if started is None else started.num_trials,
        trials=dict(sorted(Counter(str(trial.state) for trial in ledger.trials.values()).items())),
        metric=ledger.metric,
        best=None if best is None else best.number,
        best_score=None if best is None else best.score,
        baseline_score=None if baseline is None else baseline.score,
        restarts=ledger.restarts,
        phase=phase,
        model=None if registered is None else f"{registered.model} version {registered.version}",
        ended=None if ended is None else ended.state,
        reason="" if ended is None else ended.reason,
    )


def status_line(status: SweepStatus) -> str:
    """The status as a line of a log, for `last_status` to find."""
    return MARK + json.dumps(asdict(status), separators=(",", ":"))


def last_status(log: Iterable[str]) -> SweepStatus | None:
    """The last status in the lines of a log, none where no line holds one."""
    found = None
    for line in log:
        if line.startswith(MARK):
            found = _read(line) or found
    return found


def for_people(log: Iterable[str]) -> list[str]:
    """The lines of a log without those that are for programs."""
    return [line for line in log if not line.startswith(MARK)]


def _read(line: str) -> SweepStatus | None:
    """None for a line that was cut off, or that a later version wrote in a way that this one cannot read."""
    try:
        values: dict[str, Any] = json.loads(line.removeprefix(MARK))
        names = {known.name for known in fields(SweepStatus)}
        return SweepStatus(**{name: value for name, value in values.items() if name in names})
    except (ValueError, TypeError, AttributeError):
        return None
