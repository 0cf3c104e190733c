"""A node on which the pool's worker dies again and again, while another one has room for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kills import TITLES, sections_for_kills
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.small_sweep import Workplace, finish, kill, wait_until, workplace

from pharos.plan.events import NodeAvoided, PoolOpened, RoundFinished
from pharos.sweep.pool_board import FAILURES_TO_AVOID

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_TRIALS, NUM_STEPS = 3, 240


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    sections = sections_for_kills({"workers": 1, "seats_per_worker": 2})
    # Longer than a node takes to come, so that something is left to train on it.
    train = {"max_steps": NUM_STEPS, "batch_size": 8, "micro_batch_size": 4, "report_every": 20}
    search = sections["search"] | {"num_trials": NUM_TRIALS}
    made = workplace(tmp_path, small_base, **(sections | {"train": train, "search": search}))
    yield made
    made.end_everything()


def test_it_is_avoided_with_a_message_and_the_trials_go_on_elsewhere(place: Workplace) -> None:
    with ray_cluster(place, num_nodes=1) as cluster:
        bad = cluster.node_id("node-0")
        sweep = place.start("sweep")
        for failures in range(FAILURES_TO_AVOID):
            wait_until(lambda number=failures + 1: works(place, number) or sweep.poll() is not None, "no pool came")
            assert sweep.poll() is None, finish(sweep)
            if failures == FAILURES_TO_AVOID - 1:
                good = add_node(cluster)
            [worker] = place.processes(TITLES["worker"])
            kill(worker)
        run = finish(sweep)
    assert run.returncode == 0, run.stdout + run.stderr
    events = place.events()
    opened = [event.nodes for event in events if isinstance(event, PoolOpened)]
    assert opened == [(bad,)] * FAILURES_TO_AVOID + [(good,)]
    assert [(event.node, event.failures) for event in events if isinstance(event, NodeAvoided)] == [(bad, 3)]
    assert f"node {bad[:12]} is avoided from now on: 3 pools failed there" in run.stdout
    assert [trial.step for trial in place.ledger().trials.values()] == [NUM_STEPS] * NUM_TRIALS


def works(place: Workplace, number: int) -> bool:
    """Whether the pool has come so many times, and has trained since."""
    events = place.events()
    came = [event.sequence for event in events if isinstance(event, PoolOpened)]
    trained = [event.sequence for event in events if isinstance(event, RoundFinished)]
    return len(came) == number and bool(trained) and trained[-1] > came[-1]


def add_node(cluster: RayCluster) -> str:
    return cluster.node_id(cluster.add_node())
