"""What the page says in words and tables. Plain values for the template, which escapes them; nothing is HTML here."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pharos.handover.report.confirmation import contenders_by_mean
from pharos.handover.report.facts import SweepFacts
from pharos.handover.report.rungs import rungs_in_sum
from pharos.handover.report.seats import timeline
from pharos.plan import words
from pharos.plan.hyperparameters import Params
from pharos.plan.ledger import TrialRecord
from pharos.plan.result import saved_share
from pharos.plan.trial import BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One figure of the headline: what it is, how large, and against what."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """sort: what a column is ordered by, where that is not the text."""

    text: str
    sort: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """role: best or baseline, none for all others."""

    cells: Sequence[Cell]
    role: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """numeric: which columns hold numbers, and stand at the right."""

    headings: Sequence[str]
    rows: Sequence[Row]
    numeric: Sequence[bool]


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
        return f"{name} has {facts.metric} {words.score(best.score)} at step {best.best_step}."
    if facts.ledger.confirmation is not None:
        return _confirmed(facts, best)
    if best is baseline:
        return "No trial was better than the baseline: its own values are the winner."
    leads = "wins" if facts.ledger.ended else "leads"
    if baseline is None or baseline.score is None:
        return f"{name} {leads} with {facts.metric} {words.score(best.score)}; the baseline has no score."
    ours, theirs = words.score(best.score), words.score(baseline.score)
    change = _lower(best.score, baseline.score)
    return f"{name} {leads}: {facts.metric} {ours} against {theirs} of the baseline ({change})."


def _confirmed(facts: SweepFacts, best: TrialRecord) -> str:
    """The winner by its repeats, which took no part in its choice."""
    by_number = {one["number"]: one for one in contenders_by_mean(facts)}
    ours, theirs = by_number[best.number], by_number[BASELINE]
    if best.number == BASELINE:
        return "Repeated under further seeds, no trial was better than the baseline: its own values are the winner."
    seeds = words.plural(len(ours["scores"]), "further seed")
    won = f"{facts.trial_name(best.number)} wins under {seeds}: mean {facts.metric} {words.score(ours['mean'])}"
    if theirs["mean"] is None:
        return f"{won}; the baseline lacks a score under one of them."
    return f"{won} against {words.score(theirs['mean'])} of the baseline."


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
            against = f"baseline {words.score(baseline.score)}"
        found.append(Card(label=facts.metric, value=words.score(best.score), note=against))
        found += _sureness(facts, best)
        for metric, number in sorted(best.test_metrics.items()):
            theirs = baseline.test_metrics.get(metric) if baseline and baseline is not best else None
            note = f"baseline {words.metric(metric, theirs)}" if theirs is not None else ""
            found.append(Card(label=metric, value=words.metric(metric, number), note=note))
    if ledger.registered is not None:
        registered = ledger.registered
        name = f"{registered.model}@{registered.alias}"
        found.append(Card(label="registered", value=f"version {registered.version}", note=name))
    steps = sum(trial.step for trial in ledger.trials.values())
    full = sum(trial.plan.num_steps for trial in ledger.trials.values())
    if full and facts.is_search:
        found.append(
            Card(label="steps saved", value=f"{saved_share(ledger):.0%}", note=f"{steps:,} of {full:,} were run")
        )
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


def chosen_values(facts: SweepFacts) -> Table | None:
    """The searched fields: what the winner chose, and what the spec had."""
    best, baseline = facts.best, facts.baseline
    if best is None or baseline is None or best is baseline or not facts.space:
        return None
    rows = [
        Row(cells=[Cell(text=field), *(Cell(text=_value(trial.plan.params, field)) for trial in (best, baseline))])
        for field in facts.space
    ]
    return Table(headings=["field", "winner", "baseline"], rows=rows, numeric=[False, True, True])


def confirmation(facts: SweepFacts) -> Table | None:
    """Mean and spread of the contenders over further seeds, and how sure it is that each is better."""
    told = facts.ledger.confirmation
    if told is None:
        return None
    rows = []
    for one in contenders_by_mean(facts):
        is_baseline, is_winner = one["number"] == BASELINE, one["number"] == told.winner
        interval, sure = one["interval"], one["probability_better"]
        texts = [
            words.short_trial(one["number"]) + (" baseline" if is_baseline else ""),
            words.score(one["mean"]),
            words.score(one["std"]),
            *(words.score(score) for score in one["scores"]),
            words.NOTHING if one["difference"] is None else f"{one['difference']:+.4f}",
            words.NOTHING if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
            words.NOTHING if sure is None else f"{sure:.1%}",
        ]
        role = "best" if is_winner else "baseline" if is_baseline else ""
        rows.append(Row(cells=[Cell(text=text) for text in texts], role=role))
    seeds = [f"seed {seed}" for seed in told.seeds]
    headings = ["trial", "mean", "std", *seeds, "to baseline", "95% interval", "better than it"]
    return Table(headings=headings, rows=rows, numeric=[False, *[True] * (len(headings) - 1)])


def test_rows(facts: SweepFacts) -> Table | None:
    """Metrics on test rows, of whom they are known; none before they were read."""
    best, baseline = facts.best, facts.baseline
    columns: list[tuple[str, Mapping[str, float]]] = []
    if best is not None and best is not baseline:
        columns.append(("winner", best.test_metrics))
    if baseline is not None:
        columns.append(("baseline" if facts.is_search else "trial", baseline.test_metrics))
    columns.append(("untrained base", facts.ledger.base_test_metrics))
    metrics = sorted({metric for _, known in columns for metric in known})
    if not metrics:
        return None
    rows = [
        Row(cells=[Cell(text=m), *(Cell(text=words.metric(m, known.get(m))) for _, known in columns)]) for m in metrics
    ]
    headings = ["on test rows", *(name for name, _ in columns)]
    return Table(headings=headings, rows=rows, numeric=[False, *(True for _ in columns)])


def rung_table(facts: SweepFacts) -> Table | None:
    rows = [
        Row(
            cells=[
                Cell(text=f"{rung.clocks:,} clocks"),
                *(Cell(text=f"{number:,}") for number in (rung.compared, rung.went_on, rung.stopped)),
                *(Cell(text=words.score(score)) for score in (rung.best, rung.last_on)),
            ]
        )
        for rung in rungs_in_sum(facts.ledger.decisions)
    ]
    headings = ["rung", "compared", "went on", "stopped", "best", "last to go on"]
    return Table(headings=headings, rows=rows, numeric=[False, *[True] * 5]) if rows else None


def leaderboard(facts: SweepFacts) -> Table:
    """Every trial: those with a score first, by rank. The reason of its end stands last."""
    ranking = facts.ledger.ranking()
    ranks = {trial.number: rank for rank, trial in enumerate(ranking, start=1)}
    rest = [trial for number, trial in sorted(facts.ledger.trials.items()) if number not in ranks]
    metric, fields = facts.metric, list(facts.space)
    headings = ["rank", "trial", metric, "to baseline", "state", "best at", "steps", "tokens"]
    headings += [*(words.short_name(field) for field in fields), "why it ended"]
    numeric = [True, False, True, True, False, True, True, True, *[True] * len(fields), False]
    rows = [_leader(facts, trial, ranks.get(trial.number), fields) for trial in [*ranking, *rest]]
    return Table(headings=headings, rows=rows, numeric=numeric)


def _leader(facts: SweepFacts, trial: TrialRecord, rank: int | None, fields: Sequence[str]) -> Row:
    is_best, is_baseline = trial is facts.best, trial is facts.baseline and facts.is_search
    theirs = facts.baseline.score if facts.baseline else None
    difference = _lower(trial.score, theirs) if trial.score is not None and not is_baseline and rank else ""
    last = len(facts.ledger.trials) + 1
    cells = [
        Cell(text=str(rank) if rank else words.NOTHING, sort=rank or last),
        Cell(text=words.short_trial(trial.number) + (" baseline" if is_baseline else ""), sort=trial.number),
        Cell(text=words.score(trial.score), sort=trial.score if rank else None),
        Cell(text=difference, sort=trial.score if rank else None),
        Cell(text=str(trial.state)),
        Cell(text=str(trial.best_step) if trial.best_step is not None else words.NOTHING, sort=trial.best_step),
        Cell(text=f"{trial.step}/{trial.plan.num_steps}", sort=trial.step),
        Cell(text=words.count(trial.num_tokens), sort=trial.num_tokens),
        *(Cell(text=_value(trial.plan.params, field), sort=_number(trial.plan.params, field)) for field in fields),
        Cell(text=trial.reason),
    ]
    return Row(cells=cells, role="best" if is_best else "baseline" if is_baseline else "")


def places(facts: SweepFacts, sweep_dir: Path) -> list[tuple[str, str]]:
    """Where everything lies: what, and the path or name to copy."""
    registered = facts.ledger.registered
    found = [("results", str(sweep_dir / "result.json"))] if facts.ledger.ended else []
    found.append(("events", str(sweep_dir / "events")))
    if facts.best is not None and facts.best.best_checkpoint is not None:
        found.append(("winner's adapter", facts.best.best_checkpoint))
    if registered is not None:
        found += [("model", f"{registered.model} version {registered.version}, alias {registered.alias}")]
        found += [("model's files", registered.source)]
    return found


def commands(facts: SweepFacts, sweep_dir: Path) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    name, storage = shlex.quote(sweep_dir.name), shlex.quote(str(sweep_dir.parent))
    found = [(f"pharos compare {name} --storage {storage}", "the leaderboard in a terminal, to sort, filter and save")]
    if facts.ledger.registered is not None:
        model = shlex.quote(f"{facts.ledger.registered.model}@{facts.ledger.registered.alias}")
        uri = (facts.started.spec.get("tracking") or {}).get("uri")
        where = f"--storage {storage}" + (f" --tracking-uri {shlex.quote(uri)}" if uri else "")
        found += [
            (f"pharos chat {model} {where}", "talk to the winner"),
            (f"pharos promote {model} {where}", "make it the model in use, if it is better than that one"),
        ]
    if facts.state != "COMPLETED":
        found.append((f"pharos report {name} --storage {storage}", "write this page again, with what happened since"))
    return found


def spec_text(facts: SweepFacts) -> str:
    """The whole spec, defaults filled in, as YAML."""
    return yaml.safe_dump(facts.started.spec, sort_keys=False, allow_unicode=True, width=100)


def _sureness(facts: SweepFacts, best: TrialRecord) -> list[Card]:
    """How probable it is that the winner is better, where it was confirmed."""
    for one in contenders_by_mean(facts):
        if one["number"] == best.number and one["probability_better"] is not None:
            note = f"probable, by {words.plural(len(one['scores']), 'further seed')}"
            return [Card(label="better than the baseline", value=f"{one['probability_better']:.1%}", note=note)]
    return []


def _by_state(facts: SweepFacts) -> str:
    counted = Counter(str(trial.state).lower() for trial in facts.ledger.trials.values())
    return ", ".join(f"{number:,} {state}" for state, number in counted.most_common())


def _seconds(facts: SweepFacts) -> float:
    """Of all sessions together, without the time between them."""
    return timeline(facts.events).total_s


def _lower(ours: float | None, theirs: float | None) -> str:
    if ours is None or not theirs:
        return ""
    change = ours / theirs - 1
    return f"{abs(change):.1%} {'higher' if change > 0 else 'lower'}"


def _value(params: Params, field: str) -> str:
    return words.value(params[field]) if field in params else words.NOTHING


def _number(params: Params, field: str) -> float | None:
    value: Any = params.get(field)
    return float(value) if isinstance(value, int | float) else None
