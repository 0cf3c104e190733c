"""How long trials are: steps, clocks, reports, and the rungs at which halving compares them. Pure arithmetic.

A trial's length counts optimizer steps; pools, reports and rungs count its clocks, which are its micro-batches.
"""

from __future__ import annotations

from math import ceil

from pharos.errors import PlanError
from pharos.plan.hyperparameters import Params, hyperparameters
from pharos.plan.trial import TrialPlan
from pharos.spec.model import Choice, LogUniform, OneMinusLogUniform, Ordered, Scalar, SweepSpec, Uniform

DEFAULT_NUM_REPORTS = 8
"""Reports of a full trial where train.report_every is not given."""


def num_shards(spec: SweepSpec) -> int:
    """Over how many ranks one trial's batch is split."""
    return spec.pool.workers if spec.pool.placement == "data_parallel" else 1


def trial_plan(spec: SweepSpec, number: int, params: Params, num_train_items: int) -> TrialPlan:
    """The length of one trial. The last, smaller batch of an epoch counts: steps are rounded up."""
    chosen = hyperparameters(spec, params)
    num_steps = chosen.max_steps or ceil(chosen.num_train_epochs * num_train_items / chosen.batch_size)
    return TrialPlan(
        number=number,
        params=dict(params),
        hyperparameters=chosen,
        num_steps=max(1, num_steps),
        clocks_per_step=ceil(chosen.batch_size / (spec.train.micro_batch_size * num_shards(spec))),
    )


def report_every(spec: SweepSpec, baseline: TrialPlan) -> int:
    """Clocks between two reports, the same for all trials: as the spec says, or an eighth of the baseline.

    The default is made of whole optimizer steps of the baseline, so that its reports never split a step.
    """
    if spec.train.report_every is not None:
        return spec.train.report_every
    return max(1, round(baseline.num_steps / DEFAULT_NUM_REPORTS)) * baseline.clocks_per_step


def rungs(spec: SweepSpec, baseline: TrialPlan, *, report_every: int) -> tuple[int, ...]:
    """Clocks of a trial at which halving decides, ascending; empty where nothing can be decided.

    Without search.halving.first_rung: the full length divided by powers of the reduction factor, moved to the nearest
    report, the first one beyond the largest warmup (where there is no such power: the first report beyond it). With
    it: the first report at or beyond that share, then its multiples by powers of the factor. The full length is none.

    Raises PlanError where search.halving.first_rung lies within the largest warmup: a trial that still warms up shows
    nothing of what it will become.
    """
    if spec.search is None or not spec.search.halving.enabled or spec.search.num_trials < 2:
        return ()
    full, factor = baseline.num_clocks, spec.search.halving.reduction_factor
    warmup_clocks = ceil(largest_warmup_ratio(spec) * baseline.num_steps) * baseline.clocks_per_step

    if spec.search.halving.first_rung is not None:
        first = max(1, ceil(spec.search.halving.first_rung * full / report_every)) * report_every
        if first <= warmup_clocks:
            raise PlanError(_first_rung_in_warmup(spec, warmup_clocks=warmup_clocks, full=full))
        candidates = [first * factor**power for power in range(full.bit_length())]
    else:
        powers = [full / factor**power for power in range(1, full.bit_length())]
        candidates = [max(1, round(clocks / report_every)) * report_every for clocks in powers]
        if all(clocks <= warmup_clocks for clocks in candidates):
            candidates = [(warmup_clocks // report_every + 1) * report_every]
    return tuple(sorted({clocks for clocks in candidates if warmup_clocks < clocks < full}))


def expected_trial_clocks(*, num_trials: int, num_clocks: int, rungs: tuple[int, ...], reduction_factor: int) -> int:
    """Clocks of all trials together if each rung lets through the share that it should, the baseline among them."""
    going_on, total, reached = num_trials, 0, 0
    for rung in rungs:
        total += going_on * (rung - reached)
        going_on, reached = ceil(going_on / reduction_factor), rung
    return total + going_on * (num_clocks - reached)


def largest_rank(spec: SweepSpec) -> int:
    """The largest rank that any trial may have, the baseline's included."""
    return int(max([spec.lora.r, *_ends(spec, "lora.r")]))


def largest_warmup_ratio(spec: SweepSpec) -> float:
    """The largest warmup, as a share of a trial, that any trial may have, the baseline's included."""
    return float(max([spec.optim.warmup_ratio, *_ends(spec, "optim.warmup_ratio")]))


def any_dropout(spec: SweepSpec) -> bool:
    """Whether any trial may drop out inputs of its adapter."""
    return float(max([spec.lora.lora_dropout, *_ends(spec, "lora.lora_dropout")])) > 0


def _ends(spec: SweepSpec, field: str) -> list[float]:
    """The values of a searched numeric field, or the ends of its range; empty where the field is not searched."""
    if spec.search is None or field not in spec.search.space:
        return []
    values: list[Scalar] | list[float | int]
    match spec.search.space[field]:
        case Ordered(ordered=values) | Choice(choice=values):
            pass
        case Uniform(uniform=values) | LogUniform(log_uniform=values):
            pass
        case OneMinusLogUniform(one_minus_log_uniform=values):
            pass
    return [float(value) for value in values]


def _first_rung_in_warmup(spec: SweepSpec, *, warmup_clocks: int, full: int) -> str:
    assert spec.search is not None
    return (
        f"search.halving.first_rung={spec.search.halving.first_rung:g} lies within the largest warmup of the space: "
        f"optim.warmup_ratio may be {largest_warmup_ratio(spec):g}, {warmup_clocks} of {full} clocks, and a trial that "
        f"still warms up cannot be judged. Set it above {warmup_clocks / full:g}, leave it out, or lower the warmup."
    )
