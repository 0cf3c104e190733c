"""The plan of a sweep: everything that will happen, decided before anything starts. Pure.

`plan_sweep` makes it from the spec and the facts; the driver, the pool and the desk obey it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pharos.errors import PlanError
from pharos.plan.base_key import base_key
from pharos.plan.budget import expected_trial_clocks, largest_rank, report_every, rungs, trial_plan
from pharos.plan.confirmation import num_contenders
from pharos.plan.facts import BaseFacts, DataFacts, MachineFacts
from pharos.plan.hyperparameters import baseline_params
from pharos.plan.memory import MemoryPlan, base_dtype, choose_sharding
from pharos.plan.metrics import asked_answers, ranking_metric
from pharos.plan.remarks import infos, warnings
from pharos.plan.trial import BASELINE, TrialPlan
from pharos.spec.model import SweepSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What `pharos plan` prints and the driver obeys.

    rungs: clocks of a trial at which halving decides, ascending; empty without halving.
    expected_trial_clocks: of all trials together, if halving stops as many as it should.
    num_repeats: full trials under further seeds, which confirm the winner after the search.
    generation_clocks: what generating a trial's answers once costs, in clocks of its own training; 0 where none are.
    warnings: what is probably a mistake. infos: what is unusual, or was changed to fit.
    """

    sweep: str
    base: BaseFacts
    data: DataFacts
    machine: MachineFacts
    baseline: TrialPlan
    num_trials: int
    num_seats: int
    num_workers: int
    seats_per_worker: int
    placement: Literal["local", "data_parallel"]
    sharding: Literal["zero3", "replicate"]
    sharding_reason: str
    dtype: Literal["float32", "bfloat16"]
    report_every: int
    rungs: tuple[int, ...]
    reduction_factor: int
    expected_trial_clocks: int
    num_repeats: int
    generation_clocks: int
    r_max: int
    base_key: str
    min_pools: int
    max_pools: int
    memory: MemoryPlan
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()

    @property
    def repeat_clocks(self) -> int:
        """Of all repeats together: each trains in full."""
        return self.num_repeats * self.baseline.num_clocks


def plan_sweep(
    spec: SweepSpec, base: BaseFacts, data: DataFacts, machine: MachineFacts, *, without_search: bool = False
) -> SweepPlan:
    """What running this spec will do. without_search: as `pharos train`, which a spec without a search is anyway.

    Raises PlanError where it cannot work: nothing to train on or to adapt, rows that the base cannot hold, a rung
    within the warmup, a worker that is too small.
    """
    asked = single_trial_spec(spec) if without_search or spec.search is None else spec
    _check_facts(asked, base, data)
    num_trials = asked.search.num_trials if asked.search else 1
    spec = _without_idle_seats(asked, num_trials)
    baseline = trial_plan(spec, BASELINE, baseline_params(spec), data.num_train_items)
    every = report_every(spec, baseline)
    decided_at = rungs(spec, baseline, report_every=every)
    reduction_factor = spec.search.halving.reduction_factor if spec.search else 1
    choice = choose_sharding(spec, base, data, machine)
    return SweepPlan(
        sweep=spec.name,
        base=base,
        data=data,
        machine=machine,
        baseline=baseline,
        num_trials=num_trials,
        num_seats=spec.pool.seats_per_worker * (spec.pool.workers if spec.pool.placement == "local" else 1),
        num_workers=spec.pool.workers,
        seats_per_worker=spec.pool.seats_per_worker,
        placement=spec.pool.placement,
        sharding=choice.sharding,
        sharding_reason=choice.reason,
        dtype=base_dtype(spec),
        report_every=every,
        rungs=decided_at,
        reduction_factor=reduction_factor,
        expected_trial_clocks=expected_trial_clocks(
            num_trials=num_trials,
            num_clocks=baseline.num_clocks,
            rungs=decided_at,
            reduction_factor=reduction_factor,
        ),
        num_repeats=_num_repeats(spec),
        generation_clocks=_generation_clocks(spec, data),
        r_max=largest_rank(spec),
        base_key=base_key(spec, base, data),
        min_pools=spec.pool.count.min,
        max_pools=spec.pool.count.max,
        memory=choice.memory,
        warnings=warnings(spec, base, data, baseline=baseline, rungs=decided_at),
        infos=infos(spec, data, baseline=baseline, asked_seats_per_worker=asked.pool.seats_per_worker),
    )


def single_trial_spec(spec: SweepSpec) -> SweepSpec:
    """The spec as `pharos train` runs it: its own values, one seat, split over all workers unless it says otherwise.

    Running it on its own result changes nothing.
    """
    pool: dict[str, int | str] = {"seats_per_worker": 1}
    if "placement" not in spec.pool.model_fields_set:
        pool |= {"placement": "data_parallel"}
    return spec.model_copy(update={"search": None, "pool": spec.pool.model_copy(update=pool)})


def _num_repeats(spec: SweepSpec) -> int:
    if spec.search is None or spec.search.confirm is None:
        return 0
    return num_contenders(spec.search.confirm, spec.search.num_trials) * spec.search.confirm.seeds


def _generation_clocks(spec: SweepSpec, data: DataFacts) -> int:
    """By the tokens that pass through the base: a clock takes them forward and, at the same price, backward."""
    asked = asked_answers(spec)
    if asked is None:
        return 0
    answered = min(asked.max_rows, data.num_eval_rows) * (data.mean_tokens + asked.max_new_tokens)
    row_tokens = spec.data.max_length if spec.data.packing else data.mean_tokens
    return max(1, round(answered / (2 * spec.train.micro_batch_size * row_tokens)))


def _without_idle_seats(spec: SweepSpec, num_trials: int) -> SweepSpec:
    """No more seats than trials: an empty seat would cost memory for nothing."""
    holders = spec.pool.workers if spec.pool.placement == "local" else 1
    seats_per_worker = min(spec.pool.seats_per_worker, -(-num_trials // holders))
    return spec.model_copy(update={"pool": spec.pool.model_copy(update={"seats_per_worker": seats_per_worker})})


def _check_facts(spec: SweepSpec, base: BaseFacts, data: DataFacts) -> None:
    """Raise PlanError where base and data cannot be trained together."""
    if data.num_train_rows == 0:
        raise PlanError(f"data.train={spec.data.train} leaves no row to train on: a trial needs at least one.")
    if data.num_eval_rows == 0:
        raise PlanError(
            f"data.train={spec.data.train} leaves no row to evaluate on, and without one no trial has a score. "
            f"Give data.eval, more rows, or a data.eval_fraction above {spec.data.eval_fraction:g}."
        )
    has_no_questions = "text" in data.format.split(", ")
    if spec.test.generate and has_no_questions:
        raise PlanError(
            "test.generate=true asks for answers to the test rows, but rows of the form text hold no questions. "
            "Remove test.generate."
        )
    if asked_answers(spec) is not None and has_no_questions:
        raise PlanError(
            f"search.metric={ranking_metric(spec)} asks for answers to the eval rows, but rows of the form text "
            "hold no questions. Use eval_loss."
        )
    if not base.targets:
        raise PlanError(
            f"lora.target_modules={spec.lora.target_modules} matches no Linear module of {base.name} "
            f"({base.architecture}). all-linear matches all but the output layer."
        )
    longest = min(data.max_tokens, spec.data.max_length)
    if longest > base.max_position_embeddings:
        raise PlanError(
            f"data.max_length={spec.data.max_length} lets rows of {longest} tokens through, and {base.name} has "
            f"{base.max_position_embeddings} positions. Set data.max_length to {base.max_position_embeddings} or less, "
            "and say with data.long_rows what to do with longer rows."
        )
