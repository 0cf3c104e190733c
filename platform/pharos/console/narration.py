"""Events as lines that a person reads, one for each that matters. The live view's recent lines and the plain output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.ledger import Ledger
from pharos.plan.metrics import cost
from pharos.plan.pools import pool_number
from pharos.plan.trial import BASELINE, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """time_s: since the epoch, as its event says. is_in_tables: the live view's tables show it already."""

    time_s: float
    text: str
    is_bad: bool = False
    is_in_tables: bool = False


def narrate(ledger: Ledger, events: Sequence[ev.Event]) -> list[Line]:
    """Fold events into the ledger and tell them. What lies before a resume in the same batch is folded silently."""
    resumed_at = max((i for i, event in enumerate(events) if _is_resume(event)), default=0)
    for event in events[:resumed_at]:
        ledger.apply(event)
    best_before = ledger.best()
    score_before = best_before.score if best_before else None
    lines = []
    for event in events[resumed_at:]:
        ledger.apply(event)
        line = _line(event, ledger)
        if line is not None:
            lines.append(line)
    better = _better(ledger, score_before)
    return lines if better is None else [*lines, better]


def _is_resume(event: ev.Event) -> bool:
    return isinstance(event, ev.SweepStarted) and event.resumed


def _line(event: ev.Event, ledger: Ledger) -> Line | None:
    text, is_bad = "", False
    match event:
        case ev.SweepStarted():
            text = f"{event.sweep}: " + (f"resumed, {ledger.num_finished} of " if event.resumed else "")
            text += f"{words.plural(event.num_trials, 'trial')}, ranked by {event.metric}"
        case ev.PoolOpened():
            text = f"{event.pool} is up: {words.plural(event.workers, 'worker')}, "
            text += words.plural(event.num_seats, "seat") + (f", start {event.attempt + 1}" if event.attempt else "")
        case ev.PoolRequested(pool=pool) if pool_number(pool) > 0:
            text = f"{pool} is asked for"
        case ev.PoolClosed(reason=reason) if reason and pool_number(event.pool) + len(ledger.open_pools) > 0:
            text = f"{event.pool} is closed: {reason}"
        case ev.NodeAvoided():
            text = f"node {event.node[:12]} is avoided from now on: {event.failures} pools failed there: {event.reason}"
            is_bad = True
        case ev.PoolLost():
            text, is_bad = f"{event.pool} is lost: {event.reason}; {len(event.trials)} trials wait for a new seat", True
        case ev.TrialSeated():
            resumed = f", from step {event.resumed_step}" if event.resumed_step else ""
            chosen = words.params(ledger.record(event.number).plan.params)
            text = f"{_name(event.number)} takes seat {event.seat}{resumed}" + (f": {chosen}" if chosen else "")
        case ev.RungDecided():
            verb = "is stopped" if event.stopped else "goes on"
            text = f"{_name(event.number)} {verb} at rung {event.rung}: {event.reason}"
        case ev.TrialEnded(state=state) if state != TrialState.PRUNED:  # its rung has told it
            is_bad = state in (TrialState.DIVERGED, TrialState.FAILED)
            scored = f", best {words.metric(ledger.metric, event.score)}" if event.score is not None else ""
            text = f"{_name(event.number)} {state} at step {event.step}{scored}: {event.reason}"
        case ev.WinnerConfirmed():
            text = f"confirmed under {len(event.seeds)} further seeds: {_name(event.winner)} is best on their average"
        case ev.AdaptersRemoved():
            text = f"adapters of {words.plural(len(event.numbers), 'trial')} deleted ({event.reason}): "
            text += ", ".join(_name(number) for number in event.numbers)
        case ev.TestScored():
            told = ", ".join(f"{name} {words.metric(name, number)}" for name, number in event.metrics.items())
            text = f"test rows, {'untrained base' if event.number < 0 else _name(event.number)}: {told}"
        case ev.ModelRegistered():
            text = f"registered {_name(event.number)} as {event.model} version {event.version}, alias {event.alias}"
        case ev.SweepEnded():
            text, is_bad = f"{event.state}: {event.reason}", event.state == "FAILED"
    is_in_tables = isinstance(event, ev.TrialSeated)
    return Line(time_s=event.time_s, text=text, is_bad=is_bad, is_in_tables=is_in_tables) if text else None


def _better(ledger: Ledger, score_before: float | None) -> Line | None:
    """The line of a new best score, at most one a batch."""
    best = ledger.best()
    if best is None or best.score is None:
        return None
    if score_before is not None and cost(ledger.metric, best.score) >= cost(ledger.metric, score_before):
        return None
    text = f"best so far: {words.metric(ledger.metric, best.score)} by {_name(best.number)} at step {best.best_step}"
    baseline = ledger.trials.get(BASELINE)
    if baseline and best.number != BASELINE and baseline.score is not None and isfinite(baseline.score):
        text += f" (baseline {words.metric(ledger.metric, baseline.score)})"
    return Line(time_s=ledger.last_time_s or 0.0, text=text, is_in_tables=True)


def _name(number: int) -> str:
    return "the baseline" if number == BASELINE else words.short_trial(number)
