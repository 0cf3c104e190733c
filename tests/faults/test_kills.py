"""Six kills of everything that a sweep on a cluster consists of. `python tests/benchmarks kills` does thirty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kills import ONE_POOL_OVER_TWO_NODES, REPORT_EVERY, Kill, KilledSweep, cost_of, sections_for_kills
from tests.support.ray_cluster import ray_cluster
from tests.support.small_sweep import Workplace, workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

CURVE_TOLERANCE = 1e-5
KILLS = ("worker", "node", "controller", "desk", "driver", "worker")


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    made = workplace(tmp_path, small_base, **sections_for_kills(ONE_POOL_OVER_TWO_NODES))
    yield made
    made.end_everything()


def test_six_kills_of_five_kinds_cost_no_trial_and_no_number(place: Workplace, tmp_path: Path) -> None:
    with ray_cluster(place, num_nodes=2) as cluster:
        sweep = KilledSweep(place=place, cluster=cluster)
        sweep.run([Kill(what=what, after_rounds=3, delay_s=index / 10) for index, what in enumerate(KILLS)])
    assert tuple(killed.kill.what for killed in sweep.kills) == KILLS
    assert all(killed.trials_running > 0 for killed in sweep.kills), "a kill between two trainings proves nothing"
    cost = cost_of(place, scratch=tmp_path / "alone", known={})
    assert (cost.lost, cost.duplicated) == (0, 0)
    assert max(cost.repeated, cost.behind) <= REPORT_EVERY
    assert max(cost.apart) < CURVE_TOLERANCE
