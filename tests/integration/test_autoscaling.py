"""A cluster that grows for a sweep and shrinks after it, by Ray's real autoscaler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.autoscaling import autoscaling_cluster
from tests.support.growing import MAX_NODES, NUM_TRIALS, grow_and_shrink, sections_for_growing
from tests.support.small_sweep import Workplace, workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    made = workplace(tmp_path, small_base, **sections_for_growing())
    yield made
    made.end_everything()


def test_nodes_come_while_trials_wait_and_go_when_they_are_done(place: Workplace) -> None:
    with autoscaling_cluster(place, min_workers=1, max_workers=MAX_NODES) as cluster:
        grown = grow_and_shrink(place, cluster)
    numbers = [number for _, number in grown.seen]
    # The autoscaler may make one too many for a moment, and takes it back itself.
    assert max(numbers) >= MAX_NODES
    assert (numbers[0], numbers[-1]) == (1, 1)
    assert sorted(grown.ended) == list(range(NUM_TRIALS))
    assert len(set(grown.pools)) == MAX_NODES
