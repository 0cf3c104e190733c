"""A sweep whose state lies at an object store: begun on one machine, gone on with on another that has nothing of it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.conftest import FinishedSweep
from tests.support.object_store import CREDENTIALS, Bucket
from tests.support.small_sweep import NAME, Workplace, finish, steps_of, wait_until, workplace

from pharos.plan.events import Event
from pharos.plan.ledger import Ledger
from pharos.store.mirror import local_storage
from pharos.track.event_log import EventLog

TOLERANCE = 1e-5


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    (tmp_path / "place").mkdir()
    place = workplace(tmp_path / "place", small_base)
    place.environment |= CREDENTIALS
    try:
        yield place
    finally:
        place.end_everything()


def events_of(bucket: Bucket) -> list[Event]:
    return list(EventLog(local_storage(bucket.uri()) / NAME / "events").read())


def num_rounds(bucket: Bucket) -> int:
    return sum(event.kind == "round_finished" for event in events_of(bucket))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_goes_on_where_another_machine_was_interrupted_and_ends_as_on_a_local_storage(
    bucket: Bucket, place: Workplace, finished: FinishedSweep
) -> None:
    tracking = f"sqlite:///{place.root / 'tracking.db'}"
    arguments = ("--storage", bucket.uri(), "--tracking-uri", tracking)

    place.environment["PHAROS_CACHE"] = str(place.root / "first-machine")
    first = place.start("sweep", *arguments)
    wait_until(lambda: first.poll() is not None or bool(events_of(bucket)), "it never began")
    place.environment["PHAROS_CACHE"] = str(place.root / "second-machine")
    second = place.run("sweep", *arguments)
    assert second.returncode == 2
    assert f"name={NAME} is being run by another process, on host" in second.stderr

    wait_until(lambda: first.poll() is not None or num_rounds(bucket) > 2, "it never trained")
    first.send_signal(signal.SIGINT)
    assert finish(first).returncode == 130
    before = Ledger.of(events_of(bucket))
    assert before.unfinished()
    assert any(trial.step for trial in before.trials.values())
    # The machine is gone, with all that it had on its disk.
    for gone in ("first-machine", "second-machine"):
        shutil.rmtree(place.root / gone, ignore_errors=True)

    place.environment["PHAROS_CACHE"] = str(place.root / "third-machine")
    third = place.run("sweep", *arguments)
    assert third.returncode == 0, third.stdout + third.stderr
    events = events_of(bucket)
    ledger = Ledger.of(events)
    assert {event.resumed_step for event in events if event.kind == "trial_seated"} != {0}
    assert ledger.ended is not None
    assert ledger.ended.state == "COMPLETED"

    # Every trial did what it did on a local storage, as far as both have trained it.
    for number in range(6):
        local = {step["step"]: step["loss"] for step in steps_of(finished.events, number)}
        remote: dict[int, float] = {}
        for step in steps_of(events, number):
            assert abs(remote.setdefault(step["step"], step["loss"]) - step["loss"]) <= TOLERANCE
        shared = local.keys() & remote.keys()
        assert len(shared) >= 4
        assert max(abs(local[step] - remote[step]) for step in shared) <= TOLERANCE
    best, local_best = ledger.best(), finished.ledger.best()
    assert best is not None
    assert local_best is not None
    assert best.number == local_best.number

    names = bucket.store(NAME).names()
    assert {"result.json", "report.html", "merged/model.safetensors", "merged/pharos-folder.json"} <= set(names)
    assert "lock.json" not in names
    assert json.loads(bucket.store(NAME).read("result.json") or b"")["state"] == "COMPLETED"
    assert sum(name.endswith("manifest.json") for name in names if name.startswith("trials/")) >= 6

    place.environment["PHAROS_CACHE"] = str(place.root / "fourth-machine")
    again = place.run("sweep", *arguments)
    assert (again.returncode, "COMPLETED" in again.stdout) == (0, True)
