"""The marker that a node must read, and the one that it leaves; and what is said of a node that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.object_store import Bucket

from pharos.errors import StorageError
from pharos.plan.pool import PoolSettings
from pharos.store.mirror import fetch_folder, local_storage, push_folder
from pharos.sweep.sharing import base_files, linked_base, settings_here, shared
from pharos.sweep.storage_check import (
    NodeStorage,
    delete_marker,
    exchange_markers,
    read_marker,
    refuse_blind_nodes,
    write_marker,
)


@pytest.fixture(params=["directory", "store"])
def storage(request: pytest.FixtureRequest, bucket: Bucket, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "directory" else bucket.uri("x")


def test_a_node_that_sees_the_storage_reads_the_marker_and_leaves_one(storage: str) -> None:
    write_marker(storage, "marker", "token")
    assert exchange_markers(storage, "marker", "token", "answer") is None
    assert read_marker(storage, "answer") == "token"
    for name in ("marker", "answer", "none"):
        delete_marker(storage, name)
    assert read_marker(storage, "marker") is None


def test_a_node_with_another_directory_of_the_same_path_says_so(storage: str, tmp_path: Path) -> None:
    assert exchange_markers(storage, "marker", "token", "answer") == "what is written to it elsewhere is not there"
    write_marker(storage, "marker", "another")
    assert exchange_markers(storage, "marker", "token", "answer") == "another file is there"
    assert read_marker(storage, "answer") is None


def test_a_node_without_the_credentials_says_what_is_missing(bucket: Bucket) -> None:
    storage = bucket.uri().replace("s3://sweeps/", "s3://swoops/")
    problem = exchange_markers(storage, "marker", "token", "answer")
    assert problem is not None
    assert "there is no bucket swoops" in problem or "not there" in problem


def test_blind_nodes_are_named_with_the_reason_and_the_remedy() -> None:
    seeing = NodeStorage(node_id="a" * 40, address="10.0.0.1")
    blind = NodeStorage(node_id="b" * 40, address="10.0.0.2", problem="what is written to it elsewhere is not there")
    refuse_blind_nodes("/data", [seeing])
    with pytest.raises(StorageError) as caught:
        refuse_blind_nodes("/data", [seeing, blind])
    assert "storage=/data is not seen by 1 of 2 nodes" in caught.value.message
    assert "node 10.0.0.2 (bbbbbbbbbbbb): what is written to it elsewhere is not there" in caught.value.message
    assert "s3://bucket/prefix" in caught.value.message
    assert "10.0.0.1" not in caught.value.message


def settings(base_dir: str, data_dir: str) -> PoolSettings:
    return PoolSettings(
        pool="pool-0",
        base_key="key",
        base_dir=base_dir,
        data_dir=data_dir,
        trials_dir="/trials",
        workers=1,
        seats_per_worker=1,
        placement="local",
        sharding="replicate",
        target_modules="all-linear",
        r_max=4,
        micro_batch_size=1,
        report_every=1,
        metric="eval_loss",
        metric_scope="best",
        dtype="float32",
        activation_checkpointing=False,
        trust_remote_code=False,
    )


def test_a_worker_on_a_node_that_joined_later_and_sees_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(StorageError, match=r"none is not there on this node\. Every node must see it"):
        settings_here(settings(str(tmp_path / "base"), str(tmp_path / "none")))


def test_base_and_rows_come_to_a_node_once_and_from_the_store(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = local_storage(bucket.uri())
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "old.bin"):
        (base / name).write_text(name)
    (base / "checkpoint-10").mkdir()
    link = linked_base(base, storage / "cache")
    assert link == linked_base(base, storage / "cache")
    rows = storage / "cache" / "rows"
    rows.mkdir()
    (rows / "train.arrow").write_text("rows")
    push_folder(link, files=base_files(link))
    push_folder(rows)
    told = settings(shared(link), shared(rows))
    assert told.base_dir.startswith("s3://")

    monkeypatch.setenv("PHAROS_CACHE", str(tmp_path / "node"))
    here = settings_here(told)
    assert here.trials_dir == told.trials_dir
    assert sorted(path.name for path in Path(here.base_dir).iterdir()) == ["config.json", "model.safetensors"]
    assert (Path(here.data_dir) / "train.arrow").read_text() == "rows"
    assert Path(here.base_dir).is_relative_to(tmp_path / "node")
    bucket.store().delete_folder("cache")
    assert settings_here(told) == here  # what is there is not fetched again

    (base / "model.safetensors").write_text("other weights")
    assert linked_base(base, storage / "cache").name != link.name
    assert not fetch_folder(tmp_path / "node" / "none")
