"""How many pools, and which of them goes."""

from __future__ import annotations

import pytest

from pharos.plan.pools import pools_wanted, surplus_pools
from pharos.spec.model import PoolRange


@pytest.mark.parametrize(
    ("num_unfinished", "wanted"), [(100, 4), (32, 4), (25, 4), (24, 3), (9, 2), (8, 1), (1, 1), (0, 1)]
)
def test_there_are_as_many_pools_as_unfinished_trials_fill(num_unfinished: int, wanted: int) -> None:
    assert pools_wanted(num_unfinished, num_seats=8, count=PoolRange(min=1, max=4)) == wanted


def test_there_are_never_fewer_pools_than_the_spec_says() -> None:
    assert pools_wanted(1, num_seats=8, count=PoolRange(min=2, max=4)) == 2


def test_the_pool_with_the_fewest_trials_goes_first_and_of_two_alike_the_later_one() -> None:
    assert surplus_pools({"pool-0": 1, "pool-1": 3, "pool-2": 3, "pool-10": 3}, 2) == ["pool-10", "pool-0"]
    assert surplus_pools({"pool-0": 1, "pool-1": 3}, 2) == []
