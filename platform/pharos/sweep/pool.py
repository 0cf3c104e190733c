"""A pool's launcher: one Ray Train worker group with one frozen base, from its start to its end, whatever that is.

It runs as a task on the head node and waits. It starts nothing a second time: what failed is told to the desk, whose
trials go back to the queue at once, and who may ask for another pool, elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from pharos.plan.pool import PoolSettings
from pharos.spec.model import PoolSpec
from pharos.sweep.interface import talk_where_nodes_do
from pharos.sweep.names import HEAD
from pharos.sweep.worker import train_loop

START_TIMEOUT_S = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
TRAINS_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Train's own process that looks for draining nodes, one a pool: the keeper of the pools has looked already."""
NODE_DEATH = "its node has died"
"""How Ray tells a worker whose node is gone from one whose process is."""
STARTS = 20
"""How often a worker group waits that long, a minute unless the environment says otherwise, for its nodes to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFailure:
    """Why a pool is no more. ranks: of the workers that failed first, empty where that cannot be told."""

    reason: str
    ranks: tuple[int, ...] = ()


class _PoolBackend(_TorchBackend):
    """Torch's process group as Train makes it, once each worker knows the interface to talk over."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(talk_where_nodes_do)
        super().on_start(worker_group, backend_config)


class PoolTorchConfig(TorchConfig):
    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _PoolBackend


@ray.remote(num_cpus=0, resources=HEAD, max_retries=0)
def run_pool_group(
    settings: PoolSettings, pool: PoolSpec, desk: str, state_dir: str, avoided: Sequence[str]
) -> PoolFailure | None:
    """Start the worker group and stay until the desk has closed it; returns why it failed, if it did.

    avoided: ids of nodes on which none of its workers may run.
    """
    os.environ.setdefault(START_TIMEOUT_S, "60")
    os.environ.setdefault(TRAINS_WATCHER, "0")
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"settings": settings, "desk": desk},
        torch_config=PoolTorchConfig(backend="nccl" if pool.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=pool.gpus_per_worker > 0,
            resources_per_worker=_resources(pool),
            label_selector={"ray.io/node-id": f"!in({','.join(avoided)})"} if avoided else None,
        ),
        run_config=RunConfig(
            name=settings.pool,
            storage_path=str(Path(state_dir) / "pools"),
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=STARTS),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        return PoolFailure(reason=_reason(error), ranks=_failed_first(error))
    return None


def _resources(pool: PoolSpec) -> dict[str, float]:
    resources = {"CPU": float(pool.cpus_per_worker)}
    if pool.gpus_per_worker:
        resources["GPU"] = float(pool.gpus_per_worker)
    return resources


def _failed_first(error: BaseException) -> tuple[int, ...]:
    """The workers that died; where none did, those that raised. The others failed because these had left them."""
    if not isinstance(error, WorkerGroupError):
        return ()
    died = [rank for rank, cause in error.worker_failures.items() if _is_death(cause)]
    return tuple(sorted(died or error.worker_failures))


def _is_death(error: BaseException) -> bool:
    """Whether a worker's process, or its node, was lost; otherwise it raised by itself."""
    root = _root(error)
    if isinstance(root, ray.exceptions.RayTaskError):  # what a task of it raised
        return False
    return isinstance(root, ray.exceptions.RayError | WorkerHealthCheckFailedError)


def _reason(error: BaseException) -> str:
    """What began it, in one line: Ray wraps what a worker raised in its own words, and tells a death in a paragraph."""
    if isinstance(error, WorkerGroupError) and (ranks := _failed_first(error)):
        error = error.worker_failures[ranks[0]]
        if _is_death(error):
            place = "node" if NODE_DEATH in str(_root(error)) else "process"
            return f"the {place} of its worker {ranks[0]} was lost"
    root = _root(error)
    if isinstance(root, ray.exceptions.ActorDiedError):
        return "the process of Ray Train's controller was lost"
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[-1] if lines else ''}"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
