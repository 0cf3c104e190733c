"""What runs on every worker of a pool under Ray Train: build the pool, then turn its clock against the desk."""

from __future__ import annotations

import threading
from typing import Any

from pharos.plan.exchange import Orders, RoundReport
from pharos.plan.pool import PoolSettings
from pharos.sweep.names import NAMESPACE, sweep_of
from pharos.sweep.sharing import settings_here
from pharos.sweep.telemetry import clock_counter


def train_loop(config: dict[str, Any]) -> None:
    """Ray Train's loop per worker. config: {"settings": PoolSettings, "desk": actor name}."""
    import ray

    from pharos.train.group import distributed_group
    from pharos.train.loop import run_pool
    from pharos.train.open_pool import open_pool

    settings: PoolSettings = settings_here(config["settings"])
    desk = ray.get_actor(config["desk"], namespace=NAMESPACE)
    group = distributed_group()
    nodes = group.all_gather_objects(ray.get_runtime_context().get_node_id())
    pool = open_pool(settings, group)
    attempt, hurry = 0, threading.Event()
    if group.rank == 0:
        attempt = ray.get(
            desk.attach.remote(settings.pool, settings.base_key, settings.workers, settings.num_seats, tuple(nodes))
        )
        threading.Thread(target=_listen, args=(desk, settings.pool, attempt, hurry), daemon=True).start()

    def exchange(report: RoundReport) -> Orders:
        return ray.get(desk.exchange.remote(attempt, report))

    run_pool(
        settings=settings,
        pool=pool,
        group=group,
        exchange=exchange,
        is_hurried=hurry.is_set,
        on_clock=clock_counter(sweep_of(config["desk"]), pool=settings.pool, worker=group.rank),
    )


def _listen(desk: Any, pool: str, attempt: int, hurry: threading.Event) -> None:
    """Wait until the desk wants the pool back before its round is over. Ends with the process, or with the desk."""
    import ray

    try:
        ray.get(desk.wanted_back.remote(pool, attempt))
    except ray.exceptions.RayError:
        return  # the next exchange meets the same error, and says so
    hurry.set()
