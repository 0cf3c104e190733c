"""Two sweeps on one Ray cluster at the same time, which know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ray_cluster import ray_cluster
from tests.support.small_sweep import (
    Workplace,
    finish,
    largest_difference,
    prepared_rows,
    steps_of,
    train_alone,
    workplace,
)

from pharos.plan.events import PoolOpened, SweepStarted, TrialEnded
from pharos.spec.load import load_spec
from pharos.track.mlflow_client import connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CURVE_TOLERANCE = 1e-5
NUM_TRIALS = {"one": 4, "other": 3}


@pytest.fixture
def places(tmp_path: Path, small_base: Path) -> Iterator[dict[str, Workplace]]:
    """One worker each, so that both find room on two nodes of a CPU; rates at which a curve reproduces itself."""
    made = {}
    for index, (name, num_trials) in enumerate(NUM_TRIALS.items()):
        root = tmp_path / name
        root.mkdir()
        search = {
            "num_trials": num_trials,
            "seed": index,
            "halving": {"enabled": False},
            "space": {"optim.learning_rate": {"log_uniform": [1e-3, 5e-3]}},
        }
        place = workplace(
            root,
            small_base,
            name=name,
            search=search,
            train={"max_steps": 40, "batch_size": 8, "micro_batch_size": 4, "report_every": 4},
            pool={"workers": 1, "seats_per_worker": 2},
            test={"generate": False},
            register={"enabled": False},
        )
        place.name = name
        made[name] = place
    yield made
    for place in made.values():
        place.end_everything()


def test_two_sweeps_on_one_cluster_do_not_notice_each_other(places: dict[str, Workplace], tmp_path: Path) -> None:
    one, other = places.values()
    with ray_cluster(one, num_nodes=2):
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            other.environment[name] = one.environment[name]
        running = [place.start("sweep") for place in (one, other)]
        for process in running:
            run = finish(process)
            assert run.returncode == 0, run.stdout + run.stderr
            assert run.stderr == ""
    # They did run at the same time: each had its pool before the other ended.
    opened = {name: first_time_s(place, PoolOpened) for name, place in places.items()}
    ended = {name: max(event.time_s for event in place.events()) for name, place in places.items()}
    assert opened["one"] < ended["other"]
    assert opened["other"] < ended["one"]
    for name, place in places.items():
        assert_as_alone(place, NUM_TRIALS[name], tmp_path / f"{name}-alone")


def first_time_s(place: Workplace, kind: type[PoolOpened]) -> float:
    return next(event.time_s for event in place.events() if isinstance(event, kind))


def assert_as_alone(place: Workplace, num_trials: int, scratch: Path) -> None:
    events = place.events()
    assert {event.sweep for event in events if isinstance(event, SweepStarted)} == {place.name}
    assert sorted(event.number for event in events if isinstance(event, TrialEnded)) == list(range(num_trials))
    result = place.result()
    assert (result["state"], len(result["trials"])) == ("COMPLETED", num_trials)
    spec, ledger = load_spec(place.spec), place.ledger()
    for number, record in ledger.trials.items():
        alone = train_alone(
            spec,
            record.plan,
            base=place.root / "base",
            data=prepared_rows(place.paths.storage),
            trials=scratch,
            report_every=4,
        )
        assert len(steps_of(events, number)) == len(alone.steps)
        assert largest_difference(events, number, alone) < CURVE_TOLERANCE, f"trial {number}"
    client = connect(place.paths.tracking_uri)
    experiment = client.get_experiment_by_name("pharos")
    assert experiment is not None
    runs = [run.info.run_name for run in client.search_runs([experiment.experiment_id])]
    assert sorted(runs) == [place.name, *(f"{place.name}-{number:04d}" for number in range(num_trials))]
