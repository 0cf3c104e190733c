"""A node that is to go says so before, as spot machines do. The benchmark `preemption` tells what that saves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.preemption import NOTICE_S, REPORT_EVERY, sections_for_preemption, take_a_node
from tests.support.ray_cluster import ray_cluster
from tests.support.small_sweep import Workplace, workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    made = workplace(tmp_path, small_base, **sections_for_preemption())
    yield made
    made.end_everything()


def test_a_node_that_announces_its_end_is_left_with_checkpoints_before_it_goes(place: Workplace) -> None:
    with ray_cluster(place, num_nodes=2) as cluster:
        taken = take_a_node(place, cluster, with_notice=True)
    assert taken.saved_s is not None, "no checkpoint was written after the notice"
    assert taken.saved_at is not None
    assert taken.saved_at % REPORT_EVERY, "it went on to the end of its round"
    assert taken.noticed_s + taken.saved_s < taken.gone_s <= taken.noticed_s + NOTICE_S + 10
    assert taken.redone < 0.2 * taken.at_risk
