"""The event log of a sweep at an object store: what is there counts, whatever a machine has of it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from tests.support.object_store import Bucket

from pharos.errors import StorageError
from pharos.plan.events import Event, PoolClosed
from pharos.store.mirror import local_storage
from pharos.track.event_log import EventLog


def closed(*names: str) -> list[Event]:
    return [PoolClosed(pool=name, time_s=100.5) for name in names]


def log_here(bucket: Bucket) -> EventLog:
    return EventLog(local_storage(bucket.uri()) / "sweep" / "events")


def names(log: EventLog) -> list[str]:
    return [event.pool for event in log.read() if isinstance(event, PoolClosed)]


def test_another_machine_reads_every_segment_and_goes_on_behind_the_last(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = log_here(bucket)
    here.append(closed("a", "b"))
    here.append(closed("c"))
    monkeypatch.setenv("PHAROS_CACHE", str(tmp_path / "another"))
    there = log_here(bucket)
    assert there.directory != here.directory
    assert names(there) == ["a", "b", "c"]
    assert there.next_sequence() == 3
    there.append(closed("d"))
    assert names(here) == ["a", "b", "c", "d"]
    assert sorted(bucket.store("sweep", "events").names()) == ["000000.jsonl", "000002.jsonl", "000003.jsonl"]


def test_a_second_appender_is_refused_and_nothing_is_overwritten(bucket: Bucket) -> None:
    first, second = log_here(bucket), log_here(bucket)
    first.append(closed("a"))
    assert second.next_sequence() == 1
    first.append(closed("b"))
    with pytest.raises(StorageError, match=r"sweep/events/000001\.jsonl: another process appends"):
        second.append(closed("c"))
    assert names(first) == ["a", "b"]


def test_a_log_travels_to_a_node_with_a_cache_of_its_own(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_here(bucket)
    log.append(closed("a"))
    sent = pickle.dumps(log)
    monkeypatch.setenv("PHAROS_CACHE", str(tmp_path / "node"))
    arrived = pickle.loads(sent)
    assert arrived.directory.is_relative_to(tmp_path / "node")
    arrived.append(closed("b"))
    shutil.rmtree(log.directory)
    assert names(log) == ["a", "b"]


def test_a_local_log_pickles_as_its_directory(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(EventLog(tmp_path))).directory == tmp_path
