"""The tables of the page, as plain texts for the template, which escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pharos.handover.report.confirmation import contenders_by_mean
from pharos.handover.report.facts import SweepFacts
from pharos.handover.report.rungs import rungs_in_sum
from pharos.plan import words
from pharos.plan.hyperparameters import Params
from pharos.plan.ledger import TrialRecord
from pharos.plan.trial import BASELINE


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


def chosen_values(facts: SweepFacts) -> Table | None:
    """The searched fields: what the best trial chose, and what the spec had."""
    best, baseline = facts.best, facts.baseline
    if best is None or baseline is None or best is baseline or not facts.space:
        return None
    rows = [
        Row(cells=[Cell(text=field), *(Cell(text=_value(trial.plan.params, field)) for trial in (best, baseline))])
        for field in facts.space
    ]
    return Table(headings=["field", "best", "baseline"], rows=rows, numeric=[False, True, True])


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
            facts.shown(one["mean"]),
            words.score(one["std"]),
            *(facts.shown(score) for score in one["scores"]),
            words.NOTHING if one["difference"] is None else f"{one['difference']:+.4f}",
            words.NOTHING if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
            words.NOTHING if sure is None else words.chance(sure),
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
        columns.append(("best", best.test_metrics))
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
                *(Cell(text=facts.shown(score)) for score in (rung.best, rung.last_on)),
            ]
        )
        for rung in rungs_in_sum(facts.ledger.decisions, facts.metric)
    ]
    headings = ["rung", "compared", "went on", "stopped", "best", "last to go on"]
    return Table(headings=headings, rows=rows, numeric=[False, *[True] * 5]) if rows else None


def leaderboard(facts: SweepFacts) -> Table:
    """Every trial: those with a score first, by rank. The reason of its end stands last."""
    ranking = facts.ledger.ranking()
    ranks = {trial.number: rank for rank, trial in enumerate(ranking, start=1)}
    rest = [trial for number, trial in sorted(facts.ledger.trials.items()) if number not in ranks]
    metric, fields = facts.metric, list(facts.space)
    compared = ["to baseline"] if facts.is_search else []
    headings = ["rank", "trial", metric, *compared, "state", "best at", "steps", "tokens"]
    headings += [*(words.short_name(field) for field in fields), "why it ended"]
    numeric = [name not in ("trial", "state", "why it ended") for name in headings]
    rows = [_leader(facts, trial, ranks.get(trial.number), fields) for trial in [*ranking, *rest]]
    return Table(headings=headings, rows=rows, numeric=numeric)


def _leader(facts: SweepFacts, trial: TrialRecord, rank: int | None, fields: Sequence[str]) -> Row:
    is_best, is_baseline = trial is facts.best, trial is facts.baseline and facts.is_search
    theirs = facts.baseline.score if facts.baseline else None
    difference = facts.change(trial.score, theirs) if trial.score is not None and not is_baseline and rank else ""
    last = len(facts.ledger.trials) + 1
    cells = [
        Cell(text=str(rank) if rank else words.NOTHING, sort=rank or last),
        Cell(text=words.short_trial(trial.number) + (" baseline" if is_baseline else ""), sort=trial.number),
        Cell(text=facts.shown(trial.score), sort=trial.score if rank else None),
        *([Cell(text=difference, sort=trial.score if rank else None)] if facts.is_search else []),
        Cell(text=str(trial.state)),
        Cell(text=str(trial.best_step) if trial.best_step is not None else words.NOTHING, sort=trial.best_step),
        Cell(text=f"{trial.step}/{trial.plan.num_steps}", sort=trial.step),
        Cell(text=words.count(trial.num_tokens), sort=trial.num_tokens),
        *(Cell(text=_value(trial.plan.params, field), sort=_number(trial.plan.params, field)) for field in fields),
        Cell(text=trial.reason),
    ]
    return Row(cells=cells, role="best" if is_best else "baseline" if is_baseline else "")


def _value(params: Params, field: str) -> str:
    return words.value(params[field]) if field in params else words.NOTHING


def _number(params: Params, field: str) -> float | None:
    value: Any = params.get(field)
    return float(value) if isinstance(value, int | float) else None
