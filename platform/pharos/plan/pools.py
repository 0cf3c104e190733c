"""How many pools a sweep needs, and which of them to close when it needs fewer. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pharos.spec.model import PoolRange


def pools_wanted(num_unfinished: int, *, num_seats: int, count: PoolRange) -> int:
    """Pools of `num_seats` seats for so many trials: enough that none waits, within what the spec allows.

    Trials only ever become fewer, so a pool that is closed for want of them is not opened again for them.
    """
    return max(count.min, min(count.max, -(-num_unfinished // num_seats)))


def surplus_pools(live: Mapping[str, int], wanted: int) -> list[str]:
    """The pools to close so that `wanted` stay; live: trials that sit in each.

    The emptiest go first, so that the fewest trials have to move; of two alike the one that was opened later.
    """
    by_load = sorted(live, key=lambda name: (-live[name], pool_number(name)))
    return by_load[wanted:]


def pool_name(number: int) -> str:
    return f"pool-{number}"


def pool_number(name: str) -> int:
    return int(name.rpartition("-")[2])
