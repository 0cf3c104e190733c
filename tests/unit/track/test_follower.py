"""The follower: whatever its listener does, nothing is lost, nothing comes twice, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from tests.unit.track import sweeps

from pharos.plan.events import Event, PoolClosed
from pharos.track.event_log import EventLog
from pharos.track.follower import Follower
from pharos.track.mlflow_runs import MlflowRuns


class Store:
    """A listener in memory, which a test can take away. It remembers what it took, as a server does."""

    def __init__(self) -> None:
        self.taken: list[Event] = []
        self.writes = 0
        self.refused = threading.Semaphore(0)
        self.is_there = threading.Event()
        self.is_there.set()

    def attach(self, sweep: str, first_time_s: float) -> int:
        self._answer()
        assert (sweep, first_time_s) == (sweeps.SWEEP, sweeps.START_S)
        return len(self.taken)

    def write(self, events: Sequence[Event]) -> None:
        self._answer()
        self.taken += events
        self.writes += 1

    def _answer(self) -> None:
        if not self.is_there.is_set():
            self.refused.release()
            raise ConnectionError("the store is away")


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


@contextmanager
def following(log: EventLog, store: Store) -> Iterator[Follower]:
    follower = Follower(log, store, interval_s=0.001)
    try:
        yield follower
    finally:
        follower.close(timeout_s=0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = monotonic() + 20
    while not condition():
        assert monotonic() < deadline_s, "waited too long"
        threading.Event().wait(0.001)


def closed(number: int) -> list[Event]:
    return [PoolClosed(pool=f"pool-{number}")]


def test_what_is_published_arrives_in_order_once(log: EventLog) -> None:
    store = Store()
    with following(log, store) as follower:
        for batch in sweeps.rounds(num_trials=3, num_steps=10, steps_per_round=2):
            follower.publish(log.append(batch))
        assert follower.close(timeout_s=20) == 0
    assert store.taken == list(log.read())


def test_events_of_one_interval_go_in_one_write(log: EventLog) -> None:
    log.append([sweeps.started()])
    for number in range(40):
        log.append(closed(number))
    store = Store()
    with following(log, store) as follower:
        assert follower.close(timeout_s=20) == 0
    assert (len(store.taken), store.writes) == (41, 1)


def test_a_store_that_goes_away_gets_everything_once_it_is_back(log: EventLog) -> None:
    store = Store()
    with following(log, store) as follower:
        follower.publish(log.append([sweeps.started()]))
        wait_until(lambda: len(store.taken) == 1)
        store.is_there.clear()
        for number in range(50):
            follower.publish(log.append(closed(number)))
        assert store.refused.acquire(timeout=20)
        wait_until(lambda: follower.last_error == "the store is away")
        assert follower.backlog == 50
        assert len(store.taken) == 1
        store.is_there.set()
        wait_until(lambda: follower.backlog == 0 and follower.last_error is None)
    assert store.taken == list(log.read())


def test_what_a_store_did_not_take_is_left_for_the_next_follower(log: EventLog) -> None:
    store = Store()
    log.append([sweeps.started()])
    with following(log, store) as follower:
        wait_until(lambda: follower.backlog == 0)
        store.is_there.clear()
        follower.publish(log.append([*closed(1), *closed(2)]))
        assert store.refused.acquire(timeout=20)
        assert follower.close(timeout_s=0.05) == 2
    store.is_there.set()
    with following(log, store) as follower:
        assert follower.close(timeout_s=20) == 0
    assert store.taken == list(log.read())


def test_a_store_that_hangs_keeps_nobody_waiting(log: EventLog) -> None:
    hanging = threading.Event()

    class Hanging(Store):
        def write(self, events: Sequence[Event]) -> None:
            hanging.wait()

    with following(log, Hanging()) as follower:
        before_s = monotonic()
        for number in range(20):
            follower.publish([sweeps.started() if number == 0 else closed(number)[0]])
        log.append([sweeps.started()])
        follower.publish(list(log.read()))
        assert follower.close(timeout_s=0.05) == 1
        assert monotonic() - before_s < 2
        hanging.set()


def test_a_follower_of_a_log_without_events_ends_at_once(log: EventLog) -> None:
    store = Store()
    with following(log, store) as follower:
        assert follower.close(timeout_s=20) == 0
        assert follower.last_error is None
    assert store.taken == []


def test_a_trouble_is_told_once_and_its_end_too(log: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pharos.track.follower")
    store = Store()
    store.is_there.clear()
    log.append([sweeps.started()])
    with following(log, store) as follower:
        for _ in range(3):
            assert store.refused.acquire(timeout=20)
        store.is_there.set()
        wait_until(lambda: follower.backlog == 0 and follower.last_error is None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "the store is away" in caplog.messages[0]


def test_mlflow_on_sqlite_follows_a_sweep_over_a_restart(log: EventLog, runs: MlflowRuns) -> None:
    batches = sweeps.rounds(num_trials=2, num_steps=20, steps_per_round=5)
    first = Follower(log, runs, interval_s=0.001)
    for _ in range(3):
        first.publish(log.append(next(batches)))
    assert first.close(timeout_s=60) == 0
    again = MlflowRuns(runs.tracking_uri, runs.experiment, artifact_root=runs.artifact_root)
    second = Follower(log, again, interval_s=0.001)
    for batch in batches:
        second.publish(log.append(batch))
    assert second.close(timeout_s=60) == 0
    for number in (0, 1):
        history = again.client.get_metric_history(again.trial_run_id(number), "loss")
        expected = [(step, sweeps.loss_of(number, step)) for step in range(1, 21)]
        assert sorted((metric.step, metric.value) for metric in history) == expected
    assert again.client.get_run(again.parent_id).info.status == "FINISHED"
