"""What the page says first: the verdict in words, and the figures that matter most. Plain texts for the template, which
escapes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from pharos.handover.report.confirmation import contenders_by_mean
from pharos.handover.report.facts import SweepFacts
from pharos.handover.report.seats import timeline
from pharos.plan import words
from pharos.plan.ledger import TrialRecord
from pharos.plan.result import saved_share
from pharos.plan.trial import BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One figure of the headline: what it is, how large, and against what."""

    label: str
    value: str
    note: str = ""


def summary(facts: SweepFacts) -> str:
    """What was searched over what, and when."""
    spec, ledger = facts.started.spec, facts.ledger
    what = words.plural(len(ledger.trials), "trial")
    if len(ledger.trials) < facts.started.num_trials:
        what = f"{len(ledger.trials):,} of {words.plural(facts.started.num_trials, 'trial')} begun"
    when = datetime.fromtimestamp(ledger.first_time_s or 0.0, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{what} over {spec.get('base', 'an unknown base')}, begun {when}"


def standing(facts: SweepFacts) -> str:
    """Why it ended; of a sweep without an end, up to when this page goes."""
    if facts.ledger.ended is not None:
        return facts.ledger.ended.reason
    last = datetime.fromtimestamp(facts.ledger.last_time_s or 0.0, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"no end is in its log: it still runs, or was interrupted. This page shows what happened up to {last}"


def verdict(facts: SweepFacts) -> str:
    """The winner against the baseline, said plainly where it is no better."""
    best, baseline = facts.best, facts.baseline
    if best is None:
        return "No trial has a score yet." if facts.state == "RUNNING" else "No trial has a score."
    name = facts.trial_name(best.number)
    if not facts.is_search:
        return f"{name} has {facts.metric} {facts.shown(best.score)} at step {best.best_step}."
    if facts.ledger.confirmation is not None:
        return _confirmed(facts, best)
    if best is baseline:
        return "No trial was better than the baseline: its own values are the winner."
    leads = "wins" if facts.ledger.ended else "leads"
    if baseline is None or baseline.score is None:
        return f"{name} {leads} with {facts.metric} {facts.shown(best.score)}; the baseline has no score."
    ours, theirs = facts.shown(best.score), facts.shown(baseline.score)
    change = facts.change(best.score, baseline.score)
    by = f" ({change})" if change else ""
    return f"{name} {leads}: {facts.metric} {ours} against {theirs} of the baseline{by}."


def doubt(facts: SweepFacts) -> str:
    """What speaks against the winner; empty where nothing does."""
    best, baseline = facts.best, facts.baseline
    if best is None or baseline is None or best is baseline:
        return ""
    ours, theirs = (trial.test_metrics.get("test_loss") for trial in (best, baseline))
    if ours is None or theirs is None or ours < theirs:
        return ""
    return (
        f"On test rows the winner is no better than the baseline: test_loss {words.score(ours)} against "
        f"{words.score(theirs)}. The lead on eval rows may be chance."
    )


def cards(facts: SweepFacts) -> list[Card]:
    ledger, best, baseline = facts.ledger, facts.best, facts.baseline
    found = []
    if best is not None:
        against = ""
        if baseline is not None and baseline is not best and baseline.score is not None:
            against = f"baseline {facts.shown(baseline.score)}"
        searched = " in the search" if ledger.confirmation else ""
        found.append(Card(label=facts.metric + searched, value=facts.shown(best.score), note=against))
        found += _repeated(facts, best)
        for metric, number in sorted(best.test_metrics.items()):
            theirs = baseline.test_metrics.get(metric) if baseline and baseline is not best else None
            note = f"baseline {words.metric(metric, theirs)}" if theirs is not None else ""
            found.append(Card(label=metric, value=words.metric(metric, number), note=note))
    if ledger.registered is not None:
        registered = ledger.registered
        name = f"{registered.model}@{registered.alias}"
        found.append(Card(label="registered", value=f"version {registered.version}", note=name))
    if facts.is_search:
        found.append(_steps(facts))
    found.append(Card(label="trials", value=f"{len(ledger.trials):,}", note=_by_state(facts)))
    restarts = f", {words.plural(ledger.restarts, 'restart')}" if ledger.restarts else ""
    if ledger.totals.seat_clocks:
        found.append(Card(label="seats used", value=f"{ledger.totals.occupancy:.0%}", note=f"of all clocks{restarts}"))
    found.append(
        Card(
            label="time",
            value=words.duration(_seconds(facts)),
            note=f"{words.count(ledger.totals.num_tokens)} trained tokens",
        )
    )
    return found


def _confirmed(facts: SweepFacts, best: TrialRecord) -> str:
    """The winner by its repeats, which took no part in its choice."""
    by_number = {one["number"]: one for one in contenders_by_mean(facts)}
    ours, theirs = by_number[best.number], by_number[BASELINE]
    if best.number == BASELINE:
        return "Repeated under further seeds, no trial was better than the baseline: its own values are the winner."
    seeds = words.plural(len(ours["scores"]), "further seed")
    won = f"{facts.trial_name(best.number)} wins under {seeds}: mean {facts.metric} {facts.shown(ours['mean'])}"
    if theirs["mean"] is None:
        return f"{won}; the baseline lacks a score under one of them."
    return f"{won} against {facts.shown(theirs['mean'])} of the baseline."


def _steps(facts: SweepFacts) -> Card:
    """What stopping early saved, once it is known: before the end, what is left may still be run."""
    steps = sum(trial.step for trial in facts.ledger.trials.values())
    full = sum(trial.plan.num_steps for trial in facts.ledger.trials.values())
    if facts.ledger.ended is None:
        return Card(label="steps run", value=f"{steps:,}", note=f"of {full:,} at full length")
    return Card(label="steps saved", value=f"{saved_share(facts.ledger):.0%}", note=f"{steps:,} of {full:,} were run")


def _repeated(facts: SweepFacts, best: TrialRecord) -> list[Card]:
    """Where the winner was confirmed: its mean over the further seeds, and how probable it is that it is better."""
    by_number = {one["number"]: one for one in contenders_by_mean(facts)}
    if best.number not in by_number:
        return []
    ours, theirs = by_number[best.number], by_number[BASELINE]
    seeds = words.plural(len(ours["scores"]), "further seed")
    note = f"mean; baseline {facts.shown(theirs['mean'])}" if ours is not theirs else "mean"
    found = [Card(label=f"{facts.metric}, {seeds}", value=facts.shown(ours["mean"]), note=note)]
    if ours["probability_better"] is not None:
        found.append(
            Card(label="better than the baseline", value=words.chance(ours["probability_better"]), note="probable")
        )
    return found


def _by_state(facts: SweepFacts) -> str:
    counted = Counter(str(trial.state).lower() for trial in facts.ledger.trials.values())
    return ", ".join(f"{number:,} {state}" for state, number in counted.most_common())


def _seconds(facts: SweepFacts) -> float:
    """Of all sessions together, without the time between them."""
    return timeline(facts.events).total_s
