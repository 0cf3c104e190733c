"""A sweep in a Ray job: nothing of it is left where Ray will delete it, and what its user has set stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from pharos.errors import StorageError
from pharos.spec.load import load_spec
from pharos.spec.model import SweepSpec
from pharos.sweep.in_job import JOB_CONFIG, is_job, job_variables, keep_files, kept_file, refuse_relative


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "working_dir"
    (folder / "search_spaces").mkdir(parents=True)
    (folder / "rows.jsonl").write_text('{"prompt": "on?", "completion": "on"}\n')
    (folder / "large.bin").write_bytes(b"\0" * 1000)
    fields = {"name": "small", "base": "builtin:tiny", "data": {"train": "../rows.jsonl"}}
    (folder / "search_spaces" / "x.yaml").write_text(yaml.safe_dump(fields))
    return folder


def spec_of(file: Path, storage: Path) -> SweepSpec:
    return load_spec(file, [f"storage={storage}"])


def test_a_job_is_told_by_what_ray_gives_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_CONFIG, raising=False)
    assert not is_job()
    assert job_variables() == {}
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}}, "metadata": {}}))
    assert is_job()
    assert job_variables() == {"OMP_NUM_THREADS": "4"}


def test_rays_name_of_the_variable_is_still_the_same() -> None:
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert JOB_CONFIG == RAY_JOB_CONFIG_JSON_ENV_VAR


@pytest.mark.parametrize("storage", ["/shared/results", "s3://bucket/results", "gs://bucket", "file:///shared"])
def test_what_means_the_same_everywhere_is_taken(storage: str) -> None:
    refuse_relative(storage)


@pytest.mark.parametrize("storage", ["pharos-results", "../results", "~/results"])
def test_what_does_not_is_refused(storage: str) -> None:
    with pytest.raises(StorageError, match=f"storage={re.escape(storage)} is relative"):
        refuse_relative(storage)


def test_the_file_and_its_rows_outlive_the_working_directory(working_dir: Path, tmp_path: Path) -> None:
    storage = tmp_path / "results"
    file = working_dir / "search_spaces" / "x.yaml"
    kept = keep_files(spec_of(file, storage), file)
    assert kept == storage / "small" / "submitted" / "search_spaces" / "x.yaml"
    folder = storage / "small" / "submitted"
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"x.yaml", "rows.jsonl"}
    assert keep_files(spec_of(kept, storage), kept) == kept, "a job that goes on with it runs it where it lies"
    assert kept_file(str(storage), "small", "search_spaces/x.yaml") == kept


def test_a_sweep_that_has_kept_nothing_is_to_be_submitted_again(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"name=small: .* does not hold its file.*pharos submit SPEC"):
        kept_file(str(tmp_path), "small", "x.yaml")


def test_a_storage_that_the_cluster_may_not_write_is_named(working_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = working_dir / "search_spaces" / "x.yaml"
    with pytest.raises(StorageError, match=r"storage=.*file cannot be written: Not a directory"):
        keep_files(spec_of(file, tmp_path / "file"), file)
