"""Checkpoints in a directory that all see, and at an object store: the same to a pool, and never half of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.object_store import Bucket

from pharos.errors import StorageError
from pharos.train.checkpoint import MANIFEST
from pharos.train.checkpoint_place import CheckpointPlace

NAMES = ("adapter.safetensors", "state.safetensors")


@pytest.fixture(params=["directory", "store"])
def place(request: pytest.FixtureRequest, bucket: Bucket, tmp_path: Path) -> CheckpointPlace:
    return CheckpointPlace(str(tmp_path / "trials") if request.param == "directory" else bucket.uri("sweep", "trials"))


def save(place: CheckpointPlace, *checkpoints: str, text: str = "x") -> None:
    with place.writing() as trials:
        for checkpoint in checkpoints:
            directory = trials / checkpoint
            directory.mkdir(parents=True)
            for name in NAMES:
                (directory / name).write_text(text)
            files = ", ".join(f'"{name}": {{"bytes": {len(text)}}}' for name in NAMES)
            (directory / MANIFEST).write_text(f'{{"files": {{{files}}}}}')


def content(place: CheckpointPlace, checkpoint: str) -> dict[str, str]:
    with place.reading(checkpoint) as directory:
        assert directory.name == Path(checkpoint).name
        return {path.name: path.read_text() for path in directory.iterdir() if path.name != MANIFEST}


def test_what_a_report_calls_a_checkpoint_is_read_back_from_there(place: CheckpointPlace) -> None:
    save(place, "0007/step-000010", "0008/step-000010")
    called = place.called(7, "step-000010")
    assert called is not None
    assert called.endswith("/trials/0007/step-000010")
    assert "scheme=http" not in called
    assert content(place, called) == dict.fromkeys(NAMES, "x")
    assert place.called(7, None) is None


def test_only_the_latest_and_the_best_stay(place: CheckpointPlace) -> None:
    save(place, *(f"{trial}/step-00001{step}" for trial in ("0007", "0008") for step in range(4)))
    place.keep_only({7: {"step-000013", "step-000011"}, 9: {"step-000001"}})
    for step in range(4):
        assert content(place, f"a/trials/0008/step-00001{step}")
        if step in (1, 3):
            assert content(place, f"a/trials/0007/step-00001{step}")
        else:
            with pytest.raises((StorageError, FileNotFoundError)):
                content(place, f"a/trials/0007/step-00001{step}")


def test_an_upload_that_stopped_before_its_manifest_is_no_checkpoint(bucket: Bucket) -> None:
    place = CheckpointPlace(bucket.uri("sweep", "trials"))
    save(place, "0007/step-000010")
    bucket.store().delete("sweep/trials/0007/step-000010/manifest.json")
    with pytest.raises(StorageError, match=r"0007/step-000010: no manifest.json at the store"):
        content(place, "s3://b/sweep/trials/0007/step-000010")


def test_while_a_checkpoint_is_written_again_there_is_none_of_its_name(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = CheckpointPlace(bucket.uri("sweep", "trials"))
    save(place, "0007/step-000010", text="old")
    upload = type(place._store).upload

    def fail_at_state(store: object, file: Path, name: str) -> None:
        if name.endswith("state.safetensors"):
            raise StorageError("the machine was lost here")
        upload(place._store, file, name)

    monkeypatch.setattr(type(place._store), "upload", fail_at_state)
    with pytest.raises(StorageError, match="lost here"):
        save(place, "0007/step-000010", text="new")
    with pytest.raises(StorageError, match=r"no manifest\.json"):
        content(place, "0007/step-000010")


def test_nothing_goes_up_where_saving_itself_failed(bucket: Bucket) -> None:
    place = CheckpointPlace(bucket.uri("sweep", "trials"))

    def saving_fails() -> None:
        with place.writing() as trials:
            (trials / "0007" / "step-000010").mkdir(parents=True)
            raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        saving_fails()
    assert bucket.store().names("sweep") == {}


def test_a_storage_that_has_moved_has_its_checkpoints_where_it_is_now(tmp_path: Path) -> None:
    save(CheckpointPlace(str(tmp_path / "old" / "trials")), "0007/step-000010")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = CheckpointPlace(str(tmp_path / "new" / "trials"))
    assert content(moved, str(tmp_path / "old" / "trials" / "0007" / "step-000010")) == dict.fromkeys(NAMES, "x")
