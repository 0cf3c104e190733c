"""What runs on every worker of a pool under Ray Train: build the pool, then turn its clock against the desk."""

from __future__ import annotations

from typing import Any

from pharos.plan.exchange import Orders, RoundReport
from pharos.plan.pool import PoolSettings
from pharos.sweep.names import NAMESPACE
from pharos.sweep.sharing import settings_here


def train_loop(config: dict[str, Any]) -> None:
    """Ray Train's loop per worker. config: {"settings": PoolSettings, "desk": actor name}."""
    import ray

    from pharos.train.group import distributed_group
    from pharos.train.loop import run_pool
    from pharos.train.open_pool import open_pool

    settings: PoolSettings = settings_here(config["settings"])
    desk = ray.get_actor(config["desk"], namespace=NAMESPACE)
    group = distributed_group()
    pool = open_pool(settings, group)
    attempt = 0
    if group.rank == 0:
        attempt = ray.get(desk.attach.remote(settings.pool, settings.base_key, settings.workers, settings.num_seats))

    def exchange(report: RoundReport) -> Orders:
        return ray.get(desk.exchange.remote(attempt, report))

    run_pool(settings=settings, pool=pool, group=group, exchange=exchange)
