"""--storage s3://...: what is read from there on a machine that has nothing of it, and what is said where it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.command_line import Pharos
from tests.support.object_store import Bucket
from tests.support.scripted_sweep import make_plan, make_spec, scripted_sweep
from tests.support.small_sweep import spec_fields, write_rows

from pharos.store.mirror import local_storage
from pharos.track.event_log import EventLog

NAME = "quickstart"


@pytest.fixture
def storage(bucket: Bucket, tmp_path: Path) -> str:
    """A storage at a store with one finished sweep, of which this machine has nothing."""
    log = EventLog(local_storage(bucket.uri()) / NAME / "events")
    spec = make_spec()
    for batch in scripted_sweep(spec, make_plan(spec)):
        log.append(batch)
    shutil.rmtree(tmp_path / "user-cache")
    return bucket.uri()


def test_a_sweep_is_compared_and_reported_from_the_store(pharos: Pharos, storage: str, bucket: Bucket) -> None:
    code, out, err = pharos("compare", NAME, "--storage", storage)
    assert (code, err) == (0, "")
    assert "0009" in out
    assert f"--storage '{storage}'" in out  # what to type next is typed with the store, not with the mirror
    code, out, _ = pharos("report", NAME, "--storage", storage)
    assert code == 0
    assert "report.html" in bucket.store(NAME).names()


def test_a_name_that_no_sweep_of_the_store_has_is_told_the_nearest(pharos: Pharos, storage: str) -> None:
    code, _, err = pharos("compare", "quickstrat", "--storage", storage)
    assert code == 2
    assert "Did you mean quickstart?" in err
    assert storage in err


def test_a_registry_must_be_named(pharos: Pharos, storage: str) -> None:
    code, _, err = pharos("models", "--storage", storage)
    assert code == 2
    assert "--tracking-uri" in err


@pytest.mark.parametrize("verb", [("compare", NAME), ("report", NAME), ("eval", f"{NAME}-0001", f"{NAME}:test")])
def test_a_bucket_that_is_not_there_is_one_message(pharos: Pharos, bucket: Bucket, verb: tuple[str, ...]) -> None:
    code, out, err = pharos(*verb, "--storage", bucket.uri().replace("s3://sweeps/", "s3://swoops/"))
    assert (code, out) == (2, "")
    assert err.startswith("error: storage=s3://swoops/")
    assert "there is no bucket swoops" in err
    assert len(err.splitlines()) == 1


def write_sweep(directory: Path, storage: str) -> Path:
    import yaml

    write_rows(directory / "rows.jsonl")
    file = directory / "sweep.yaml"
    file.write_text(yaml.safe_dump(spec_fields(storage=storage, base="builtin:tiny")))
    return file


@pytest.mark.parametrize("verb", ["plan", "sweep", "train"])
def test_a_store_without_a_tracking_uri_is_refused_where_it_was_written(
    pharos: Pharos, bucket: Bucket, tmp_path: Path, verb: str
) -> None:
    file = write_sweep(tmp_path, bucket.uri())
    code, _, err = pharos(verb, str(file))
    assert code == 2
    assert "sweep.yaml:" in err
    assert "Set tracking.uri (--tracking-uri)" in err


def test_credentials_in_a_storage_are_refused_and_not_shown(pharos: Pharos, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, "s3://KEYOFMINE:HIDDEN@bucket/x")
    code, out, err = pharos("plan", str(file))
    assert code == 2
    assert "AWS_ACCESS_KEY_ID" in err
    assert "HIDDEN" not in out + err
