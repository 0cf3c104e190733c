"""A pool's launcher: one Ray Train worker group with one frozen base, kept alive for the whole sweep.

It runs as a task on the head node and waits; when the group cannot be kept alive it tells the desk why.
"""

from __future__ import annotations

from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from pharos.plan.pool import PoolSettings
from pharos.spec.model import PoolSpec
from pharos.sweep.names import HEAD, NAMESPACE
from pharos.sweep.worker import train_loop


@ray.remote(num_cpus=0, resources=HEAD, max_retries=0)
def run_pool_group(settings: PoolSettings, pool: PoolSpec, desk: str, state_dir: str) -> None:
    """Start the worker group and stay until the desk closes it. Failures beyond `max_restarts` go to the desk."""
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"settings": settings, "desk": desk},
        torch_config=TorchConfig(backend="nccl" if pool.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=pool.gpus_per_worker > 0,
            resources_per_worker=_resources(pool),
        ),
        run_config=RunConfig(
            name=settings.pool,
            storage_path=str(Path(state_dir) / "pools"),
            failure_config=FailureConfig(max_failures=pool.max_restarts, controller_failure_limit=3),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        ray.get(ray.get_actor(desk, namespace=NAMESPACE).pool_failed.remote(settings.pool, _reason(error)))


def _resources(pool: PoolSpec) -> dict[str, float]:
    resources = {"CPU": float(pool.cpus_per_worker)}
    if pool.gpus_per_worker:
        resources["GPU"] = float(pool.gpus_per_worker)
    return resources


def _reason(error: BaseException) -> str:
    """The root cause in one line: Ray wraps what a worker raised in its own words."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[-1] if lines else ''}"
