"""Trials of one or more sweeps side by side, wherever they were read: the event log, or MLflow alone. Pure.

A reader gives `TrialFacts`; what one trial is beside others (rank, difference, share of the cost) is found here. What
is done with the rows is in `comparison_rows.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from pharos.errors import UserError
from pharos.plan.hyperparameters import Params, dotted
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.metrics import cost, place
from pharos.plan.paired import PairedDifference, paired_difference
from pharos.plan.seat_time import SeatTime
from pharos.plan.trial import BASELINE, TrialState, repeat_of, trial_name
from pharos.spec.model import Domain, Scalar
from pharos.spec.space import domain_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """What a store says of one trial of the search, or of a repeat of one.

    hyperparameters: all of them by dotted field, those that are set. score: finite or none, at best_step. steps: run,
    of num_steps at full length. seat_s: seconds in a seat. best_loss: eval_loss at best_step, which tells equal shares
    of right answers apart. What a store does not know is none.
    """

    number: int
    state: TrialState
    reason: str
    params: Params
    hyperparameters: Mapping[str, Scalar]
    score: float | None
    best_step: int | None
    steps: int | None
    num_steps: int
    num_tokens: int
    clocks: int | None
    seat_s: float | None
    best_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedTrial:
    """A trial of the search beside the others.

    rank: from 1, by score, over all sweeps that are compared. cost_share: of all clocks that its sweep trained, the
    repeats among them. difference: of its score to its own sweep's baseline. repeated: the same over further seeds,
    paired by seed; none where it was not repeated, and for the baseline. probability_better: that it is better than the
    baseline, by these.
    """

    sweep: str
    name: str
    facts: TrialFacts
    is_winner: bool
    cost_share: float | None
    difference: float | None
    repeated: PairedDifference | None
    probability_better: float | None
    num_repeats: int
    rank: int | None = None

    @property
    def is_baseline(self) -> bool:
        return self.facts.number == BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSweep:
    """One sweep. label: how it is told from the others; source: where it was read. winner: a trial's number.

    repeats_share: of the clocks, those that repeats took. model: that it registered, none where it did not.
    """

    label: str
    source: str
    state: str
    reason: str
    metric: str
    winner: int | None
    model: str | None
    space: Mapping[str, Domain] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    trials: tuple[ComparedTrial, ...] = ()
    repeats_share: float = 0.0

    def scored(self) -> list[tuple[Params, float]]:
        """Searched values of every trial that has a score, and the score, turned so that lower is better."""
        return [
            (trial.facts.params, cost(self.metric, trial.facts.score))
            for trial in self.trials
            if trial.facts.score is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Sweeps of one metric, with all their trials: those with a score by rank, then the others."""

    metric: str
    sweeps: tuple[ComparedSweep, ...]
    trials: tuple[ComparedTrial, ...]


def sweep_of_ledger(ledger: Ledger, seat_times: Mapping[int, SeatTime], *, source: str) -> ComparedSweep:
    """A sweep as its event log tells it. `ledger` has seen its first event."""
    started, best = ledger.started, ledger.best()
    assert started is not None, "an event log begins with SweepStarted"
    sweep = ComparedSweep(
        label=started.sweep,
        source=source,
        state=ledger.ended.state if ledger.ended else "RUNNING",
        reason=ledger.ended.reason if ledger.ended else "",
        metric=started.metric,
        winner=None if best is None else best.number,
        model=ledger.registered.model if ledger.registered else None,
        space=_space_of(started.spec),
        digests=started.digests,
    )
    return with_trials(sweep, [_facts(record, seat_times.get(record.number)) for record in ledger.records()])


def with_trials(sweep: ComparedSweep, facts: Iterable[TrialFacts]) -> ComparedSweep:
    """The sweep with its trials in the order of their numbers, each seen beside the baseline and the others."""
    by_number = {one.number: one for one in sorted(facts, key=lambda one: one.number)}
    # By trial, then by seed: the scores of repeats that trained to their end.
    repeats: dict[int, dict[int, float]] = {}
    for one in by_number.values():
        repeat = repeat_of(one.number)
        if repeat is not None and one.state == TrialState.COMPLETED and one.score is not None:
            repeats.setdefault(repeat.of, {})[repeat.seed] = one.score
    clocks = _sum(one.clocks for one in by_number.values())
    baseline = by_number.get(BASELINE)
    trials = []
    for one in by_number.values():
        if repeat_of(one.number) is not None:
            continue
        own = repeats.get(one.number, {})
        repeated = None if one is baseline else _repeated(own, repeats.get(BASELINE, {}))
        trials.append(
            ComparedTrial(
                sweep=sweep.label,
                name=trial_name(sweep.label, one.number),
                facts=one,
                is_winner=one.number == sweep.winner,
                cost_share=one.clocks / clocks if clocks and one.clocks is not None else None,
                difference=_difference(one.score, baseline.score if baseline else None),
                repeated=repeated,
                probability_better=None if repeated is None else repeated.probability_better(sweep.metric),
                num_repeats=len(own),
            )
        )
    of_repeats = _sum(one.clocks for one in by_number.values() if repeat_of(one.number) is not None)
    return replace(sweep, trials=tuple(trials), repeats_share=of_repeats / clocks if clocks and of_repeats else 0.0)


def side_by_side(sweeps: Sequence[ComparedSweep]) -> Comparison:
    """One leaderboard of several sweeps. Raises UserError where they were scored by different metrics.

    Sweeps of one name are told apart by where they were read.
    """
    metrics = {sweep.metric for sweep in sweeps}
    if len(metrics) > 1:
        scored = "; ".join(f"{sweep.label} by {sweep.metric}" for sweep in sweeps)
        raise UserError(
            f"These sweeps cannot stand in one leaderboard, since their scores are of different metrics: {scored}. "
            "Compare sweeps of one metric at a time."
        )
    told_apart = tuple(_told_apart(sweep, sweeps) for sweep in sweeps)
    trials = [trial for sweep in told_apart for trial in sweep.trials]
    metric = metrics.pop()
    ordered = sorted(trials, key=lambda trial: _place(trial.facts, metric))
    ranked = tuple(
        trial if trial.facts.score is None else replace(trial, rank=rank) for rank, trial in enumerate(ordered, start=1)
    )
    return Comparison(metric=metric, sweeps=told_apart, trials=ranked)


def _facts(record: TrialRecord, seat_time: SeatTime | None) -> TrialFacts:
    plan = record.plan
    return TrialFacts(
        number=record.number,
        state=record.state,
        reason=record.reason,
        params=plan.params,
        hyperparameters={**dotted(plan.hyperparameters), **plan.params},
        score=record.score if record.score is not None and isfinite(record.score) else None,
        best_step=record.best_step,
        steps=record.step,
        num_steps=plan.num_steps,
        num_tokens=record.num_tokens,
        clocks=record.clocks,
        seat_s=seat_time.seat_s if seat_time else 0.0,
        best_loss=record.best_loss,
    )


def _space_of(spec: Mapping[str, Any]) -> dict[str, Domain]:
    """The search space of a sweep's spec as its log holds it; the rest of the spec may be of another version."""
    written = (spec.get("search") or {}).get("space") or {}
    domains = {field: domain_of(*next(iter(domain.items()))) for field, domain in written.items()}
    return {field: domain for field, domain in domains.items() if domain is not None}


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum, or none where one is not known."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _difference(score: float | None, baseline: float | None) -> float | None:
    return None if score is None or baseline is None else score - baseline


def _repeated(ours: Mapping[int, float], theirs: Mapping[int, float]) -> PairedDifference | None:
    """Over the seeds that both were repeated under."""
    seeds = sorted(set(ours) & set(theirs))
    return paired_difference([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]) if seeds else None


def _place(facts: TrialFacts, metric: str) -> tuple[bool, tuple[float, float]]:
    """What to rank a trial by, lowest first; those without a score come last."""
    return facts.score is None, place(metric, 0.0 if facts.score is None else facts.score, facts.best_loss)


def _told_apart(sweep: ComparedSweep, sweeps: Sequence[ComparedSweep]) -> ComparedSweep:
    if sum(other.label == sweep.label for other in sweeps) == 1:
        return sweep
    label = f"{sweep.label} ({sweep.source})"
    return replace(sweep, label=label, trials=tuple(replace(trial, sweep=label) for trial in sweep.trials))
