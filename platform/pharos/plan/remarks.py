"""What a plan remarks about a spec that can run: what is probably a mistake, and what is only unusual. Pure."""

from __future__ import annotations

from pharos.plan.budget import largest_rank, largest_warmup_ratio, num_shards
from pharos.plan.facts import BaseFacts, DataFacts
from pharos.plan.trial import TrialPlan
from pharos.spec.model import SweepSpec

USUAL_LEARNING_RATES = (5e-6, 5e-3)
"""For LoRA with AdamW; the best lies near ten times that of full fine-tuning and hardly depends on the rank
(Schulman et al., LoRA Without Regret, 2025)."""
FEW_EVAL_ROWS = 32
LATE_FIRST_RUNG = 0.5


def warnings(
    spec: SweepSpec, base: BaseFacts, data: DataFacts, *, baseline: TrialPlan, rungs: tuple[int, ...]
) -> tuple[str, ...]:
    """What is probably a mistake, each with what would mend it."""
    found = [*_halving(spec, baseline=baseline, rungs=rungs)]
    low, high = USUAL_LEARNING_RATES
    if not low <= spec.optim.learning_rate <= high:
        found.append(
            f"optim.learning_rate={spec.optim.learning_rate:g} is far from what suits LoRA ({low:g} to {high:g})."
        )
    if spec.train.batch_size > data.num_train_items:
        items = "training rows" if data.num_packs is None else "packs of training rows"
        found.append(
            f"train.batch_size={spec.train.batch_size} is more than the {data.num_train_items} {items}: "
            "one step sees rows more than once."
        )
    narrowest = min(min(target.d_in, target.d_out) for target in base.targets)
    if largest_rank(spec) > narrowest:
        found.append(
            f"lora.r may be {largest_rank(spec)}, and the narrowest target module has {narrowest} dimensions: "
            f"a rank above {narrowest} adds parameters but nothing that they could learn."
        )
    if data.num_eval_rows < FEW_EVAL_ROWS:
        found.append(
            f"only {data.num_eval_rows} eval rows steer the search: its scores will be noisy. "
            "Give data.eval, or raise data.eval_fraction."
        )
    num_trials = spec.search.num_trials if spec.search else 1
    if spec.pool.placement == "local" and num_trials < spec.pool.workers:
        found.append(
            f"pool.workers={spec.pool.workers}, but a local trial lives on one worker and there is {num_trials}: "
            "the others only hold their part of the base. pool.placement=data_parallel uses them all."
        )
    if spec.pool.placement == "data_parallel" and spec.train.batch_size < num_shards(spec):
        found.append(
            f"train.batch_size={spec.train.batch_size} is less than pool.workers={spec.pool.workers} of a "
            "data-parallel pool: some workers have no row."
        )
    return (*found, *data.warnings)


def infos(spec: SweepSpec, data: DataFacts, *, baseline: TrialPlan, asked_seats_per_worker: int) -> tuple[str, ...]:
    """What is unusual or was changed to fit, and right."""
    found = []
    if spec.pool.seats_per_worker < asked_seats_per_worker:
        num_trials = spec.search.num_trials if spec.search else 1
        found.append(
            f"pool.seats_per_worker={asked_seats_per_worker} is more than {num_trials} trials can fill: "
            f"{spec.pool.seats_per_worker} is used."
        )
    if data.mixture:
        found.append(f"an epoch of {data.num_train_rows:,} rows mixes {data.mixture}.")
    if data.num_long_rows and spec.data.long_rows != "error":
        done = "skipped"
        if spec.data.long_rows == "truncate":
            done = f"truncated, {data.num_rows_cut_inside or 'none'} of them inside a turn"
        found.append(f"{data.num_long_rows} rows longer than data.max_length={spec.data.max_length} are {done}.")
    if spec.search is not None and 1 < spec.search.num_trials <= spec.search.num_startup_trials:
        found.append(
            f"search.num_startup_trials={spec.search.num_startup_trials} of {spec.search.num_trials} trials: "
            "all of them are drawn at random."
        )
    if baseline.num_clocks < 10:
        found.append(f"a full trial is only {baseline.num_steps} steps long.")
    return tuple(found)


def _halving(spec: SweepSpec, *, baseline: TrialPlan, rungs: tuple[int, ...]) -> list[str]:
    """Halving that was asked for and can save nothing, or little."""
    if spec.search is None or not spec.search.halving.enabled or spec.search.num_trials < 2:
        return []
    warmup = largest_warmup_ratio(spec)
    if not rungs:
        return [
            "search.halving finds no report at which it could decide: a full trial has "
            f"{baseline.num_clocks} clocks and warmup may take {warmup:.0%} of them. Lower train.report_every or the "
            "warmup, or set search.halving.enabled=false."
        ]
    if rungs[0] > LATE_FIRST_RUNG * baseline.num_clocks and spec.search.halving.first_rung is None:
        return [
            f"the first rung lies at {rungs[0]} of {baseline.num_clocks} clocks, since optim.warmup_ratio may be "
            f"{warmup:g}: stopping early saves little. A smaller warmup lets halving decide earlier."
        ]
    return []
