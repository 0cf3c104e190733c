"""R_ray: one TorchTrainer per trial under Ray Tune, over one pool whose seats take the same trials.

Both train the quickstart's trials to full length over ZeRO-3 on the same CPUs, with the same loop, evaluations and
checkpoints, and must score them alike. Most of the ratio is start-up, so that is shown apart.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.quickstart import QUICKSTART, sweep
from tests.benchmarks.reporting import Options, Report, Table, Target

from pharos.plan.exchange import Admit, Evict, Orders, RoundReport
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import TrialPlan
from pharos.spec.load import load_spec

NUM_TRIALS, SEATS_PER_WORKER = 12, 6
OVERRIDES = (
    f"pool.seats_per_worker={SEATS_PER_WORKER}",  # so that all trials share each gather of the base
    "search.halving.enabled=false",
    "register.enabled=false",
    "test.generate=false",
    # At higher rates training is chaotic: the order of a sum, which differs between one rank and two, changes results.
    "search.space.optim.learning_rate={log_uniform: [1e-5, 5e-3]}",
)


def run(options: Options) -> Report:
    num_trials = 3 if options.smoke else NUM_TRIALS
    max_steps = 8 if options.smoke else options.max_steps
    overrides = [*OVERRIDES, f"search.num_trials={num_trials}"]
    overrides += [f"train.max_steps={max_steps}"] if max_steps else []
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        pool, trials = one_pool(storage, overrides)
        singles = one_trainer_each(storage, overrides, trials)
    differences = [
        max(abs(single["scores"][step] - score) for step, score in pool["scores"][single["number"]].items())
        for single in singles["trials"]
    ]
    startup_s = [single["wall_s"] - single["training_s"] for single in singles["trials"]]
    training_s = [single["training_s"] for single in singles["trials"]]
    return Report(
        settings={"spec": QUICKSTART.name, "overrides": overrides, "CPUs": os.cpu_count()},
        tables=[
            Table(
                title="seconds, from Ray's start to the last trial's end",
                rows=[
                    {
                        "way": f"one pool of {2 * SEATS_PER_WORKER} seats",
                        "total": round(pool["total_s"], 1),
                        "start-up": round(pool["total_s"] - pool["training_s"], 1),
                        "training": round(pool["training_s"], 1),
                        "a trial, start-up": round((pool["total_s"] - pool["training_s"]) / num_trials, 1),
                        "a trial, training": round(pool["training_s"] / num_trials, 1),
                    },
                    {
                        "way": "a TorchTrainer each",
                        "total": round(singles["total_s"], 1),
                        "start-up": round(singles["total_s"] - sum(training_s), 1),
                        "training": round(sum(training_s), 1),
                        "a trial, start-up": round(mean(startup_s), 1),
                        "a trial, training": round(mean(training_s), 1),
                    },
                ],
            )
        ],
        quality={
            "trials": num_trials,
            "largest difference of eval losses, at any report": max(differences),
            "the same by trial": [float(f"{difference:.2g}") for difference in differences],
        },
        targets=[Target(what="R_ray", measured=singles["total_s"] / pool["total_s"], limit=4.0)],
        notes=[f"trial time alone: {sum(training_s) / pool['training_s']:.2f}"],
    )


def one_pool(storage: Path, overrides: list[str]) -> tuple[dict[str, Any], list[TrialPlan]]:
    """`pharos sweep`. Returns times and scores (trial -> step -> eval loss), and its trials."""
    swept = sweep(storage, overrides)
    phases, trials = swept.phases_s, swept.ledger.trials
    scores = {
        number: {step: metrics["eval_loss"] for step, metrics in trial.evaluations.items()}
        for number, trial in trials.items()
    }
    total_s = phases["start"] + phases["pool"] + phases["search"]
    times = {"total_s": total_s, "training_s": swept.training_s, "scores": scores}
    return times, [trial.plan for _, trial in sorted(trials.items())]


def one_trainer_each(storage: Path, overrides: list[str], trials: list[TrialPlan]) -> dict[str, Any]:
    """The same trials as Ray's documentation has it: a function under Tune that fits a TorchTrainer."""
    from pharos.sweep.environment import set_environment

    set_environment(address=None)
    import ray
    from ray import tune

    from pharos.plan.paths import SweepPaths
    from pharos.sweep.driver import pool_settings
    from pharos.sweep.names import HEAD
    from pharos.sweep.ray_session import OBJECT_STORE_BYTES, WORKER
    from pharos.sweep.staging import stage

    spec = load_spec(QUICKSTART, overrides)
    spec = spec.model_copy(update={"storage": str(storage), "name": "one-each"})
    staged = stage(spec, root=QUICKSTART.parent, progress=lambda text: None)
    settings = replace(
        pool_settings(staged, SweepPaths(storage, spec.name), "alone"), seats_per_worker=1, placement="data_parallel"
    )
    at_once = max(1, (os.cpu_count() or 1) // settings.workers)
    started = time.monotonic()
    ray.init(
        num_cpus=max(os.cpu_count() or 1, settings.workers),
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": WORKER | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}},
    )
    try:
        results = tune.Tuner(
            tune.with_resources(_fit_one, HEAD),
            param_space={
                "plan": tune.grid_search([_alone(plan, settings) for plan in trials]),
                "settings": settings,
                "directory": str(storage),
            },
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=tune.RunConfig(name="tune", storage_path=str(storage / "ray"), verbose=0),
        ).fit()
        total_s = time.monotonic() - started
    finally:
        ray.shutdown()
    if results.errors:
        raise RuntimeError(f"a trainer failed: {results.errors[0]}")
    done = [json.loads((storage / f"single-{plan.number}.json").read_text()) for plan in trials]
    walls = {result.metrics["number"]: result.metrics["wall_s"] for result in results}
    for single in done:
        single["scores"] = {int(step): score for step, score in single["scores"].items()}
        single["wall_s"] = walls[single["number"]]
    return {"total_s": total_s, "trials": done}


def _alone(plan: TrialPlan, settings: PoolSettings) -> TrialPlan:
    """The trial with its batch split over the workers."""
    batch_size = plan.hyperparameters.batch_size
    return replace(plan, clocks_per_step=-(-batch_size // (settings.micro_batch_size * settings.workers)))


def _fit_one(config: dict[str, Any]) -> None:
    """Tune's function for one trial."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    started = time.monotonic()
    settings, plan = config["settings"], config["plan"]
    TorchTrainer(
        _train_one,
        train_loop_config=config,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=settings.workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name=f"trial-{plan.number}", storage_path=str(Path(config["directory"]) / "trainers")),
    ).fit()
    tune.report({"number": plan.number, "wall_s": time.monotonic() - started})


def _train_one(config: dict[str, Any]) -> None:
    """Each worker's loop: a base of its own, one trial, closed when it is done. Rank 0 writes what was seen."""
    from pharos.train.group import distributed_group
    from pharos.train.loop import run_pool
    from pharos.train.open_pool import open_pool

    settings, plan = config["settings"], config["plan"]
    settings = replace(settings, r_max=plan.hyperparameters.r)
    group = distributed_group()
    pool = open_pool(settings, group)
    started = time.monotonic()
    scores: dict[int, float] = {}

    def exchange(report: RoundReport) -> Orders:
        if not report.seats:
            return Orders(admit=(Admit(seat=0, trial=plan),))
        seat = report.seats[0]
        scores[seat.step] = seat.eval_metrics[settings.metric]
        if not seat.done:
            return Orders()
        return Orders(evict=(Evict(seat=0, number=plan.number),), close=True)

    run_pool(settings=settings, pool=pool, group=group, exchange=exchange)
    if group.rank == 0:
        seen = {"number": plan.number, "training_s": time.monotonic() - started, "scores": scores}
        (Path(config["directory"]) / f"single-{plan.number}.json").write_text(json.dumps(seen))
