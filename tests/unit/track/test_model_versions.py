"""A version is found by an alias or a number, and what is not there is named together with what is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.track import sweeps

from pharos.errors import ModelError, TrackingError
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.model_versions import ADAPTER, find_version, version_folder
from pharos.track.registry import Lineage, RegisteredVersion, register_version


@pytest.fixture
def registered(runs: MlflowRuns, tmp_path: Path) -> RegisteredVersion:
    """docker/1, the candidate."""
    runs.attach(sweeps.SWEEP, sweeps.START_S)
    runs.write([sweeps.started(), sweeps.created(0)])
    return register_version(
        runs,
        model="docker",
        merged=sweeps.model_directory(tmp_path / "work" / "merged"),
        adapter=sweeps.model_directory(tmp_path / "work" / "adapter", b"adapter"),
        lineage=Lineage(sweep=sweeps.SWEEP, trial=0, digests={"spec": "5bec"}),
    )


def test_a_version_is_found_by_alias_and_by_number(registered: RegisteredVersion, store_uri: str) -> None:
    by_alias = find_version(store_uri, "docker", alias="candidate")
    assert by_alias == find_version(store_uri, "docker", version="1")
    assert (by_alias.shown, by_alias.aliases) == ("docker/1", ("candidate",))
    assert by_alias.tags["pharos.trial"] == "0"
    unused = Path("unused")
    assert version_folder(by_alias, cache=unused) == registered.path
    assert (version_folder(by_alias, ADAPTER, cache=unused) / "model.safetensors").read_bytes() == b"adapter"
    assert not unused.exists()


def test_what_is_not_there_is_named_with_what_is(registered: RegisteredVersion, store_uri: str) -> None:
    with pytest.raises(ModelError, match="dockr: no such registered model in .* Did you mean docker[?] There are: do"):
        find_version(store_uri, "dockr", alias="candidate")
    with pytest.raises(ModelError, match="has no alias candidat. Did you mean candidate[?] There is docker@candidate "):
        find_version(store_uri, "docker", alias="candidat")
    with pytest.raises(ModelError, match="docker/7: docker has no version 7. There is docker/1."):
        find_version(store_uri, "docker", version="7")


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="there is no MLflow store at sqlite.* Start the server, or name another"):
        find_version(f"sqlite:///{tmp_path / 'none.db'}", "docker", version="1")
    assert not (tmp_path / "none.db").exists()


def test_files_that_have_gone_are_missed(registered: RegisteredVersion, store_uri: str, tmp_path: Path) -> None:
    assert registered.path is not None
    registered.path.rename(registered.path.with_name("moved"))
    with pytest.raises(ModelError, match="docker/1: its files should be in .*/merged, which is not there"):
        version_folder(find_version(store_uri, "docker", version="1"), cache=tmp_path / "cache")
