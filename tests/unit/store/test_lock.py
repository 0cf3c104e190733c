"""Two drivers on two machines never hold one sweep, and a dead one does not hold it for long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.object_store import Bucket

from pharos.errors import StorageError
from pharos.store.lock import LOCK, Patience, store_lock
from pharos.store.mirror import local_storage

AT_ONCE = Patience(beat_s=3600, stale_s=90, settle_s=0)


@pytest.fixture
def folder(bucket: Bucket) -> Path:
    return local_storage(bucket.uri()) / "sweep"


def hold_elsewhere(bucket: Bucket) -> None:
    content = {"owner": "another", "mirror": "another", "host": "far-away"}
    bucket.store().write(f"sweep/{LOCK}", json.dumps(content).encode())


def test_a_sweep_that_another_machine_runs_is_refused_with_its_name(bucket: Bucket, folder: Path) -> None:
    hold_elsewhere(bucket)
    with (
        pytest.raises(StorageError, match=r"name=sweep is being run .* host far-away.* works in [0-9]+ s"),
        store_lock(folder, patience=AT_ONCE),
    ):
        pass
    assert "another" in str(bucket.store().read(f"sweep/{LOCK}"))
    assert list(bucket.store().names("sweep")) == [LOCK]


def test_a_holder_without_a_sign_of_life_is_taken_over(bucket: Bucket, folder: Path) -> None:
    hold_elsewhere(bucket)
    with store_lock(folder, patience=Patience(beat_s=3600, stale_s=-1, settle_s=0)):
        assert "another" not in str(bucket.store().read(f"sweep/{LOCK}"))
    assert bucket.store().names("sweep") == {}


def test_the_lock_of_this_same_mirror_is_of_a_process_that_is_gone(bucket: Bucket, folder: Path) -> None:
    with store_lock(folder, patience=AT_ONCE):
        held = bucket.store().read(f"sweep/{LOCK}")
    assert held is not None
    bucket.store().write(f"sweep/{LOCK}", held)
    with store_lock(folder, patience=AT_ONCE):
        assert bucket.store().read(f"sweep/{LOCK}") != held


def test_of_two_who_begin_at_once_one_is_refused(bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pharos.store import lock

    write = lock._write

    def write_and_be_overtaken(place: lock.Mirrored, owner: str) -> None:
        write(place, owner)
        hold_elsewhere(bucket)

    monkeypatch.setattr(lock, "_write", write_and_be_overtaken)
    with pytest.raises(StorageError, match="it began at the same moment"), store_lock(folder, patience=AT_ONCE):
        pass
    assert "another" in str(bucket.store().read(f"sweep/{LOCK}"))


def test_a_local_path_has_no_such_lock(tmp_path: Path) -> None:
    with store_lock(tmp_path / "sweep"):
        assert list(tmp_path.iterdir()) == []
