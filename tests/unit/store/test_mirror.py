"""A mirror against a store that answers: what goes up, what comes down, and what is not there until it is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from tests.support.object_store import Bucket

from pharos.errors import StorageError
from pharos.store import mirror
from pharos.store.mirror import (
    fetch_checkpoint,
    fetch_folder,
    fetch_segments,
    fetched_file,
    folders_of,
    local_storage,
    mirrored,
    push_file,
    push_folder,
    remove_folder,
    typed_storage,
    upload_folder,
    write_whole,
)
from pharos.store.objects import ObjectStore, open_store


def folder_of(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / f"{name}.txt").write_text(text)
    return directory


def another_machine(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror of the same storage where nothing has been fetched yet."""
    monkeypatch.setenv("PHAROS_CACHE", str(tmp_path / "another-cache"))
    return local_storage(bucket.uri())


def test_a_local_storage_is_no_mirror_and_nothing_happens_to_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", b="x")
    assert local_storage(str(tmp_path)) == tmp_path
    assert local_storage(f"file://{tmp_path}") == tmp_path
    assert mirrored(folder) is None
    assert typed_storage(folder) == str(folder)
    push_folder(folder)
    fetch_segments(folder)
    assert (fetch_folder(folder), fetch_folder(tmp_path / "none"), fetch_checkpoint(folder)) == (True, False, True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b.txt"]
    remove_folder(folder)
    assert folders_of(tmp_path) == []


def test_a_folder_that_went_up_is_whole_on_another_machine(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(local_storage(bucket.uri()) / "cache" / "abc", one="1", two="22")
    (folder / "deep").mkdir()
    (folder / "deep" / "three.bin").write_bytes(b"\0" * 70_000)
    push_folder(folder)
    there = another_machine(bucket, tmp_path, monkeypatch) / "cache" / "abc"
    assert folders_of(there.parent) == ["abc"]
    assert fetch_folder(there)
    assert {path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*") if path.is_file()} == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert typed_storage(there.parents[1]) == bucket.uri()


def test_a_folder_whose_last_object_is_missing_is_not_there(bucket: Bucket) -> None:
    root = local_storage(bucket.uri())
    push_folder(folder_of(root / "cache" / "abc", one="1"))
    bucket.store().delete(f"cache/abc/{mirror.FOLDER}")
    shutil.rmtree(root / "cache" / "abc")
    assert not fetch_folder(root / "cache" / "abc")
    assert not (root / "cache" / "abc").exists()


def test_a_file_that_is_cut_off_at_the_store_is_an_error_and_leaves_nothing(bucket: Bucket) -> None:
    root = local_storage(bucket.uri())
    push_folder(folder_of(root / "cache" / "abc", one="1234567890"))
    bucket.store().write("cache/abc/one.txt", b"12345")
    shutil.rmtree(root / "cache" / "abc")
    with pytest.raises(StorageError, match=r"one.txt has 5 bytes, and 10 were written"):
        fetch_folder(root / "cache" / "abc")
    assert not (root / "cache" / "abc").exists()


def test_a_checkpoint_is_fetched_as_it_is_now_and_not_as_it_was(bucket: Bucket) -> None:
    root = local_storage(bucket.uri())
    checkpoint = root / "sweep" / "trials" / "0001" / "step-000004"

    def upload(text: str) -> None:
        file = root / "source.txt"
        file.write_text(text)
        content = json.dumps({"files": {"a.txt": {"bytes": len(text), "sha256": text}}}).encode()
        upload_folder(
            bucket.store(), "sweep/trials/0001/step-000004", {"a.txt": file}, marker="manifest.json", content=content
        )

    assert not fetch_checkpoint(checkpoint)
    upload("first")
    assert fetch_checkpoint(checkpoint)
    upload("again, longer")
    assert fetch_checkpoint(checkpoint)
    assert (checkpoint / "a.txt").read_text() == "again, longer"
    bucket.store().delete("sweep/trials/0001/step-000004/manifest.json")
    assert not fetch_checkpoint(checkpoint)
    assert not checkpoint.exists()


def test_what_is_removed_is_gone_in_both_places(bucket: Bucket) -> None:
    root = local_storage(bucket.uri())
    push_folder(folder_of(root / "sweep" / "trials" / "0001", one="1"))
    push_folder(folder_of(root / "sweep" / "trials" / "0002", one="1"))
    remove_folder(root / "sweep" / "trials" / "0001")
    remove_folder(root / "sweep" / "trials" / "0003")
    assert folders_of(root / "sweep" / "trials") == ["0002"]
    assert all(name.startswith("0002/") for name in bucket.store("sweep", "trials").names())


def test_a_file_alone_is_fetched_without_making_its_folder(bucket: Bucket) -> None:
    root = local_storage(bucket.uri())
    write_whole(root / "cache" / "abc" / "template", b"{{ x }}")
    push_file(root / "cache" / "abc" / "template")
    shutil.rmtree(root / "cache")
    assert fetched_file(root / "cache" / "abc" / "template").read_text() == "{{ x }}"
    assert not (root / "cache").exists()
    assert not fetched_file(root / "cache" / "abc" / "none").exists()


def test_segments_of_another_sweep_of_this_name_are_dropped_with_all_that_belonged_to_it(bucket: Bucket) -> None:
    root = local_storage(bucket.uri())
    events = root / "sweep" / "events"
    for name, text in (("000000", "old"), ("000001", "old"), ("000002", "old")):
        write_whole(events / f"{name}.jsonl", text.encode())
    write_whole(root / "sweep" / "merged" / "model", b"old")
    write_whole(root / "sweep" / "lock", b"")
    bucket.store().write("sweep/events/000000.jsonl", b"new")
    bucket.store().write("sweep/events/000001.jsonl", b"new")
    fetch_segments(events)
    assert {path.name: path.read_text() for path in events.iterdir()} == {
        "000000.jsonl": "new",
        "000001.jsonl": "new",
    }
    assert sorted(path.name for path in (root / "sweep").iterdir()) == ["events", "lock"]


def test_a_segment_that_never_reached_the_store_did_not_happen(bucket: Bucket) -> None:
    events = local_storage(bucket.uri()) / "sweep" / "events"
    write_whole(events / "000000.jsonl", b"same")
    bucket.store().write("sweep/events/000000.jsonl", b"same")
    write_whole(events / "000001.jsonl", b"lost")
    fetch_segments(events)
    assert [path.name for path in events.iterdir()] == ["000000.jsonl"]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_store_keeps_what_it_is_given(kind: str, bucket: Bucket, tmp_path: Path) -> None:
    """The same of an answering S3 and of a file system, which the tests of other rooms may use in its place."""
    (tmp_path / "root").mkdir()
    local = ObjectStore(SubTreeFileSystem(str(tmp_path / "root"), LocalFileSystem()), "bucket/x", "local")
    store = bucket.store("x") if kind == "s3" else local
    (tmp_path / "file").write_bytes(b"12")
    assert (store.names(), store.folders(), store.read("a"), store.modified_s("a")) == ({}, [], None, None)
    store.write("a", b"1")
    store.write("a", b"123")
    store.upload(tmp_path / "file", "deep/er/b")
    assert (store.names(), store.folders()) == ({"a": 3, "deep/er/b": 2}, ["deep"])
    assert store.names("deep") == {"er/b": 2}
    assert store.read("a") == b"123"
    assert store.modified_s("a") is not None
    store.download("deep/er/b", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"12"
    with pytest.raises(StorageError):
        store.download("none", tmp_path / "back")
    store.write("a.gz", b"pyarrow would press this by its name")
    assert store.names()["a.gz"] == len(store.read("a.gz") or b"") == 36
    store.delete("a.gz")
    store.delete("a")
    store.delete("a")
    store.delete_folder("deep")
    store.delete_folder("deep")
    assert store.names() == {}


def test_a_bucket_that_is_not_there_is_said_with_the_remedy(bucket: Bucket) -> None:
    store = open_store(bucket.uri().replace("s3://sweeps/", "s3://swoops/"))
    for ask in (store.check, lambda: store.write("a", b"1")):
        with pytest.raises(StorageError, match=r"storage=s3://swoops/.*: there is no bucket swoops\. Create it"):
            ask()


def test_a_store_that_is_away_is_said_soon_with_the_remedy(bucket: Bucket) -> None:
    with pytest.raises(StorageError, match=r"the store does not answer \(.*AWS_ENDPOINT_URL"):
        open_store("s3://sweeps/x?endpoint_override=127.0.0.1:1&scheme=http").check()


def test_the_endpoint_may_stand_in_the_environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.port}/")
    store = open_store(bucket.uri("environment").partition("?")[0])
    store.write("a", b"1")
    assert bucket.store("environment").read("a") == b"1"
