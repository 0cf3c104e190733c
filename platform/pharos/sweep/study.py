"""A sweep's space and trials as Optuna's: what the search and the importance of parameters have in common.

Optuna alone, no Ray: importance is shown long after a cluster is gone, and must not wait for Ray's import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState

from pharos.plan.hyperparameters import Params
from pharos.plan.ledger import TrialRecord
from pharos.plan.trial import TrialState
from pharos.spec.model import Choice, Domain, LogUniform, OneMinusLogUniform, Ordered, Scalar, Uniform

TOLD_AS = {
    TrialState.COMPLETED: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.STOPPED: OptunaState.PRUNED,
    TrialState.DIVERGED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


def distributions(domains: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """A search space as Optuna's."""
    return {field: distribution(domain) for field, domain in domains.items()}


def distribution(domain: Domain) -> BaseDistribution:
    """A domain of the spec as Optuna's: an ordered list is an integer index, 1 - x on a log scale is a log float."""
    match domain:
        case Ordered(ordered=values):
            return IntDistribution(0, len(values) - 1)
        case Choice(choice=values):
            return CategoricalDistribution(values)
        case Uniform(uniform=[low, high]):
            return FloatDistribution(low, high)
        case LogUniform(log_uniform=[low, high]):
            return FloatDistribution(low, high, log=True)
        case OneMinusLogUniform(one_minus_log_uniform=[low, high]):
            return FloatDistribution(1 - high, 1 - low, log=True)
    raise TypeError(f"{domain!r} is no domain")


def to_value(domain: Domain, raw: Any) -> Scalar:
    """Optuna's value of a parameter as the trial's."""
    match domain:
        case Ordered(ordered=values):
            return values[raw]
        case OneMinusLogUniform():
            return 1 - raw
    return raw


def to_raw(domain: Domain, value: Scalar) -> Any:
    """The inverse of `to_value`; none where an ordered list does not hold the value."""
    match domain:
        case Ordered(ordered=values):
            return values.index(value) if value in values else None
        case OneMinusLogUniform():
            return 1 - float(value)
    return value


def inside(domains: Mapping[str, Domain], params: Params) -> dict[str, Any] | None:
    """The point as Optuna's values, or none where it lies outside the space."""
    raw = {field: to_raw(domains[field], value) for field, value in params.items() if field in domains}
    if len(raw) < len(domains):
        return None
    for field, value in raw.items():
        known = distribution(domains[field])
        if value is None or (isinstance(known, CategoricalDistribution) and value not in known.choices):
            return None
        if isinstance(known, FloatDistribution):
            # 1 - (1 - x) may fall beyond the end by a rounding: such a point is on the edge, not outside.
            slack = 1e-12
            if not known.low - slack <= value <= known.high + slack:
                return None
            raw[field] = min(max(value, known.low), known.high)
    return raw


def intermediates(trial: TrialRecord, metric: str) -> dict[int, float]:
    """Evaluations by clocks, as the search reports them while a trial runs."""
    per_step = trial.plan.clocks_per_step
    return {step * per_step: metrics[metric] for step, metrics in trial.evaluations.items() if metric in metrics}


def told_value(trial: TrialRecord, told: OptunaState, seen: Mapping[int, float]) -> float | None:
    """What Optuna hears as the value of a finished trial: its score, or the last evaluation of one that was pruned."""
    if told == OptunaState.COMPLETE:
        return trial.score
    return seen[max(seen)] if told == OptunaState.PRUNED and seen else None
