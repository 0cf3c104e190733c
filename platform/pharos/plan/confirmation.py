"""Whether the winner is luck: the best trials and the baseline again, under the same further seeds. Pure.

The score that made a trial the best of many is too good on average, since it was chosen for it. So the winner is named
by the repeats alone, which took no part in the choice; all contenders are repeated in full and under the same seeds of
adapter, dropout and order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite
from statistics import mean, stdev
from typing import Any

from pharos.plan.events import WinnerConfirmed
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.metrics import cost
from pharos.plan.paired import paired_difference
from pharos.plan.trial import BASELINE, Repeat, TrialPlan, TrialState
from pharos.spec.model import ConfirmSpec, SweepSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One trial's repeats.

    scores: by seed, none where a repeat diverged or failed. mean, std: over the seeds, none unless all have a score.
    difference, interval: to the baseline, paired by seed, with 95% confidence; probability_better: that it is better
    than the baseline. All three are none for the baseline itself and where a score is missing.
    """

    number: int
    scores: tuple[float | None, ...]
    mean: float | None = None
    std: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    probability_better: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def num_contenders(confirm: ConfirmSpec, num_trials: int) -> int:
    """How many trials are repeated, the baseline among them."""
    return min(confirm.top, num_trials - 1) + 1 if num_trials > 1 else 0


def contenders(ledger: Ledger, confirm: ConfirmSpec) -> list[int]:
    """The best `top` trials that trained to their full length, and the baseline; empty where it would stand alone.

    A trial that was stopped early is none: its repeats would be longer than itself.
    """
    finished = [trial.number for trial in ledger.ranking() if trial.state == TrialState.COMPLETED]
    best = [number for number in finished if number != BASELINE][: confirm.top]
    return [BASELINE, *best] if best else []


def repeats(spec: SweepSpec, ledger: Ledger, confirm: ConfirmSpec) -> list[TrialPlan]:
    """The trials to train for a confirmation, those of one seed together."""
    numbers = contenders(ledger, confirm)
    return [
        _again(ledger.trials[number].plan, Repeat(number, seed), spec)
        for seed in range(1, confirm.seeds + 1)
        for number in numbers
    ]


def confirmed(spec: SweepSpec, ledger: Ledger, confirm: ConfirmSpec) -> WinnerConfirmed | None:
    """Who wins on the average over the further seeds, once all repeats are final; none without contenders.

    A contender that lacks a score under any seed cannot be relied on: it wins only where no other is left. A tie goes
    to the baseline, then to the lower number.
    """
    numbers = contenders(ledger, confirm)
    if not numbers:
        return None
    scores = {number: _scores(ledger, number, confirm.seeds) for number in numbers}
    found = [_contender(number, scores[number], scores[BASELINE], metric=ledger.metric) for number in numbers]
    winner = min(found, key=lambda one: by_mean(one.mean, one.number, metric=ledger.metric))
    return WinnerConfirmed(
        winner=winner.number,
        seeds=tuple(spec.train.seed + seed for seed in range(1, confirm.seeds + 1)),
        contenders=tuple(contender.to_json() for contender in found),
    )


def is_confirmed(ledger: Ledger, confirm: ConfirmSpec | None) -> bool:
    """Whether the log holds the confirmation that is asked for; also where none is, or nothing can be confirmed."""
    if confirm is None:
        return True
    wanted = contenders(ledger, confirm)
    if ledger.confirmation is None:
        return not wanted
    known = [contender["number"] for contender in ledger.confirmation.contenders]
    return known == wanted and len(ledger.confirmation.seeds) == confirm.seeds


def _again(plan: TrialPlan, repeat: Repeat, spec: SweepSpec) -> TrialPlan:
    seed, data_seed = spec.train.seed + repeat.seed, spec.train.data_seed + repeat.seed
    hyperparameters = replace(plan.hyperparameters, seed=seed, data_seed=data_seed)
    return replace(plan, number=repeat.number, hyperparameters=hyperparameters)


def by_mean(mean: float | None, number: int, *, metric: str) -> tuple[float, int]:
    """What to sort contenders by, the best first: their mean, those without one last, then their number."""
    return inf if mean is None else cost(metric, mean), number


def _scores(ledger: Ledger, number: int, num_seeds: int) -> tuple[float | None, ...]:
    records = [ledger.repeats.get(Repeat(number, seed).number) for seed in range(1, num_seeds + 1)]
    return tuple(_score(record) for record in records)


def _score(record: TrialRecord | None) -> float | None:
    if record is None or record.state != TrialState.COMPLETED or record.score is None:
        return None
    return record.score if isfinite(record.score) else None


def _contender(
    number: int, scores: Sequence[float | None], baseline: Sequence[float | None], *, metric: str
) -> Contender:
    known, known_baseline = _all_known(scores), _all_known(baseline)
    if known is None:
        return Contender(number=number, scores=tuple(scores))
    spread = stdev(known) if len(known) > 1 else None
    found = Contender(number=number, scores=tuple(scores), mean=mean(known), std=spread)
    if number == BASELINE or known_baseline is None:
        return found
    difference = paired_difference(known, known_baseline)
    better = difference.probability_better(metric)
    return replace(found, difference=difference.mean, interval=difference.interval, probability_better=better)


def _all_known(scores: Sequence[float | None]) -> list[float] | None:
    known = [score for score in scores if score is not None]
    return known if len(known) == len(scores) else None
