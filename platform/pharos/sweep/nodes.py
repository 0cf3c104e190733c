"""What a node of the cluster could hold, by the resources that it has told Ray of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pharos.spec.model import PoolSpec


def worker_places(node: Mapping[str, Any], pool: PoolSpec) -> int:
    """How many workers of a pool would have room on a node, an entry of `ray.nodes()`, if nothing else ran there."""
    resources = node["Resources"]
    needs = {"CPU": pool.cpus_per_worker, "GPU": pool.gpus_per_worker}
    return min(int(resources.get(name, 0) // amount) for name, amount in needs.items() if amount)
