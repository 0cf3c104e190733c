"""One pool of eight seats against one TorchTrainer per trial, both ZeRO-3 over two nodes with a slow link between them.

The nodes are network namespaces with a link shaped by tc. Both ways run the same loop with one gather of the base an
optimizer step, which is the least there can be: the pool holds a trial's batch of two on one rank, a trainer splits it
over both. Time and bytes are of whole rounds after the first, evaluation and checkpoints included; start-up is apart.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.reporting import Options, Report, Table, Target
from tests.support.namespaces import INTERFACE, missing
from tests.support.ray_cluster import cluster_in_namespaces
from tests.support.small_sweep import Workplace, spec_fields, workplace, write_base

from pharos.plan.exchange import Admit, Evict, Orders, RoundReport
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import TrialPlan

ROOT = Path(__file__).parents[2]
RATES = ("200mbit", "1gbit")
NUM_TRIALS, NUM_TRAINERS = 8, 2
"""A trainer takes half a minute to start, and each gives the same figures: two of the eight are enough."""
NUM_STEPS, REPORT_EVERY, BATCH_SIZE, LENGTH = 12, 4, 2, 64
LAYERS, HIDDEN = 7, 512
LEAST_FASTER, LEAST_FEWER_BYTES = 4.0, 7.0


def run(options: Options) -> Report:
    reason = missing()
    if reason is not None:
        raise SystemExit(f"two_nodes needs two network namespaces with a shaped link: {reason}")
    rates = [options.rate] if options.rate else list(RATES)
    seen: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as directory:
        base = write_large_base(Path(directory, "base"), num_layers=1 if options.smoke else LAYERS)
        for rate in rates:
            root = Path(directory, rate)
            root.mkdir()
            seen[rate] = measure(root, base, rate, num_trainers=1 if options.smoke else NUM_TRAINERS)
            print(f"{rate}: {json.dumps(seen[rate]['ratios'])}", flush=True)
    return Report(
        settings={
            "parameters of the base, fp32": seen[rates[0]]["parameters"],
            "trials": NUM_TRIALS,
            "batch": f"{BATCH_SIZE} x {LENGTH} tokens",
            "steps of a trial": NUM_STEPS,
            "trainers that were run, of one per trial": NUM_TRAINERS,
            "CPUs": os.cpu_count(),
        },
        tables=[
            Table(title=f"a link of {rate}: per trial and optimizer step", rows=seen[rate]["rows"]) for rate in rates
        ],
        quality={
            "largest difference of eval losses, by rate": {rate: seen[rate]["difference"] for rate in rates},
        },
        targets=[
            target
            for rate in rates
            for target in (
                Target(what=f"{rate}: less time", measured=seen[rate]["ratios"]["time"], limit=LEAST_FASTER),
                Target(what=f"{rate}: fewer bytes", measured=seen[rate]["ratios"]["bytes"], limit=LEAST_FEWER_BYTES),
            )
        ],
        notes=["both nodes share the cores of one machine; only the link between them is real"],
    )


def measure(root: Path, base: Path, rate: str, *, num_trainers: int) -> dict[str, Any]:
    """Both ways over one link of that rate."""
    place = workplace(root, base, **sections())
    place.environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    settings, trials, num_parameters = prepared(place)
    with cluster_in_namespaces(place, rate=rate):
        together = fit(place, "pool", settings, trials)
        alone = [
            fit(place, f"trainer-{trial.number}", split_over_ranks(settings), [replace(trial, clocks_per_step=1)])
            for trial in trials[:num_trainers]
        ]
    return {
        "parameters": num_parameters,
        "rows": [
            of_way(f"one pool of {NUM_TRIALS} seats", [together], num_trials=NUM_TRIALS),
            of_way("a TorchTrainer each", alone, num_trials=1),
        ],
        "ratios": {
            "time": mean(one["step_s"] for one in alone) / (together["step_s"] / NUM_TRIALS),
            "bytes": mean(one["step_bytes"] for one in alone) / (together["step_bytes"] / NUM_TRIALS),
        },
        "difference": max(
            abs(together["losses"][number][at] - loss)
            for one in alone
            for number, losses in one["losses"].items()
            for at, loss in losses.items()
        ),
    }


def of_way(way: str, fits: Sequence[dict[str, Any]], *, num_trials: int) -> dict[str, Any]:
    return {
        "way": way,
        "s": round(mean(one["step_s"] for one in fits) / num_trials, 3),
        "MB on the link": round(mean(one["step_bytes"] for one in fits) / num_trials / 1e6, 2),
        "of one step: s": round(mean(one["step_s"] for one in fits), 2),
        "of each": ", ".join(f"{one['step_s']:.2f}" for one in fits),
        "start-up s": round(mean(one["startup_s"] for one in fits), 1),
    }


def sections() -> dict[str, Any]:
    """Rows packed into sequences of one length, so that every clock has as much to do."""
    return {
        "data": spec_fields()["data"] | {"max_length": LENGTH, "packing": True, "max_eval_rows": 2},
        "lora": {"r": 16, "lora_alpha": 16},
        "optim": {"learning_rate": 1e-4},
        "train": {
            "max_steps": NUM_STEPS,
            "batch_size": BATCH_SIZE,
            "micro_batch_size": BATCH_SIZE,
            "report_every": REPORT_EVERY,
        },
        "search": {
            "num_trials": NUM_TRIALS,
            "halving": {"enabled": False},
            "space": {"optim.learning_rate": {"log_uniform": [1e-5, 1e-3]}},
        },
        "pool": {"workers": 2, "seats_per_worker": NUM_TRIALS // 2, "sharding": "zero3"},
        "test": {"generate": False},
    }


def prepared(place: Workplace) -> tuple[PoolSettings, list[TrialPlan], int]:
    """The pool's settings, its trials, and the parameters of the base; the rows are tokens afterwards."""
    from pharos.plan.budget import trial_plan
    from pharos.spec.load import load_spec
    from pharos.sweep.driver import pool_settings
    from pharos.sweep.staging import stage

    spec = load_spec(place.spec).model_copy(update={"storage": str(place.paths.storage)})
    staged = stage(spec, root=place.root, progress=lambda text: None)
    trials = [
        trial_plan(spec, number, {"optim.learning_rate": 1e-5 * 1.9**number}, staged.plan.data.num_train_items)
        for number in range(NUM_TRIALS)
    ]
    return pool_settings(staged, place.paths, "pool"), trials, staged.plan.base.num_parameters


def split_over_ranks(settings: PoolSettings) -> PoolSettings:
    """For one trial alone: its batch over both ranks, a row each."""
    return replace(
        settings, seats_per_worker=1, placement="data_parallel", micro_batch_size=BATCH_SIZE // settings.workers
    )


def fit(place: Workplace, name: str, settings: PoolSettings, trials: Sequence[TrialPlan]) -> dict[str, Any]:
    """One TorchTrainer over both nodes, driven from the first; what its rank 0 saw."""
    work, seen = place.root / f"{name}.pickle", place.root / f"{name}.json"
    trials_dir = str(place.root / f"{name}-trials")
    job = Job(name=name, settings=replace(settings, trials_dir=trials_dir), trials=tuple(trials), seen=str(seen))
    work.write_bytes(pickle.dumps(job))
    command = [*place.within, sys.executable, "-m", "tests.benchmarks.two_nodes", str(work)]
    # By itself a TorchTrainer takes the interface that the host's name stands for, which is no namespace's.
    environment = place.environment | {"GLOO_SOCKET_IFNAME": INTERFACE}
    began_s = time.monotonic()
    done = subprocess.run(
        command, env=environment, cwd=place.root, capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    measured = json.loads(seen.read_text())
    measured["startup_s"] = time.monotonic() - began_s - measured["training_s"]
    measured["losses"] = {
        int(number): {int(step): loss for step, loss in losses.items()} for number, losses in measured["losses"].items()
    }
    return dict(measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one TorchTrainer trains. seen: where its rank 0 writes what it saw."""

    name: str
    settings: PoolSettings
    trials: tuple[TrialPlan, ...]
    seen: str


def fit_inside(job: Job) -> None:
    """In the namespace of the head: an ordinary driver."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from pharos.sweep.ray_session import ray_session

    with ray_session(
        address=os.environ["RAY_ADDRESS"],
        num_cpus=1,
        num_processes=8,
        gpus=False,
        threads_per_worker=1,
        dashboard_port=None,
    ):
        TorchTrainer(
            train,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=job.settings.workers, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name=job.name, storage_path=str(Path(job.seen).parent / "trainers")),
        ).fit()


def train(config: dict[str, Any]) -> None:
    """Each worker's loop. Rank 0 seats all trials at once and looks at the clock and the link at each report."""
    from pharos.train.group import distributed_group
    from pharos.train.loop import run_pool
    from pharos.train.open_pool import open_pool

    job: Job = config["job"]
    group = distributed_group()
    pool = open_pool(job.settings, group)
    looks: list[tuple[float, int, int]] = []
    losses: dict[int, dict[int, float]] = {trial.number: {} for trial in job.trials}

    def exchange(report: RoundReport) -> Orders:
        looks.append((time.monotonic(), link_bytes(), max((seat.step for seat in report.seats), default=0)))
        for seat in report.seats:
            losses[seat.number][seat.step] = seat.eval_metrics["eval_loss"]
        if not report.seats:
            return Orders(admit=tuple(Admit(seat=index, trial=trial) for index, trial in enumerate(job.trials)))
        done = tuple(Evict(seat=seat.seat, number=seat.number) for seat in report.seats if seat.done)
        return Orders(evict=done, close=len(done) == len(report.seats))

    run_pool(settings=job.settings, pool=pool, group=group, exchange=exchange)
    if group.rank == 0:
        # The first round warms up: DeepSpeed learns in which order the parameters are wanted.
        (first_s, first_bytes, first_step), (last_s, last_bytes, last_step) = looks[1], looks[-1]
        seen = {
            "step_s": (last_s - first_s) / (last_step - first_step),
            "step_bytes": (last_bytes - first_bytes) / (last_step - first_step),
            "training_s": last_s - looks[0][0],
            "losses": losses,
        }
        Path(job.seen).write_text(json.dumps(seen))


def link_bytes() -> int:
    """What has gone over this node's link, both directions."""
    counters = Path("/sys/class/net", INTERFACE, "statistics")
    return sum(int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))


def write_large_base(directory: Path, *, num_layers: int) -> Path:
    """A Llama of random weights that takes a slow link seconds, with the small base's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    write_base(directory)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(AutoTokenizer.from_pretrained(directory)),
            hidden_size=HIDDEN,
            intermediate_size=1376,
            num_hidden_layers=num_layers,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=False,
        )
    ).save_pretrained(directory)
    return directory


if __name__ == "__main__":
    fit_inside(pickle.loads(Path(sys.argv[1]).read_bytes()))
