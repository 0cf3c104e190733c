"""The hand-over: one version for a trial, whatever crashed on the way, found by its alias, with its lineage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.track import sweeps

from pharos.errors import HandOverError
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.model_versions import find_version, version_folder
from pharos.track.registry import Lineage, RegisteredVersion, register_version
from pharos.track.versions import digest_of

LINEAGE = Lineage(
    sweep=sweeps.SWEEP,
    trial=0,
    digests={"spec": "5bec", "data": "da7a", "base": "ba5e", "adapter": "ada9"},
    metrics={"eval_loss": 2.5, "test_loss": 2.75},
    versions={"torch": "2.13.0"},
)


@pytest.fixture
def tracked(runs: MlflowRuns) -> MlflowRuns:
    """Runs of a sweep with two trials."""
    runs.attach(sweeps.SWEEP, sweeps.START_S)
    runs.write([sweeps.started(), sweeps.created(0), sweeps.created(1)])
    return runs


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    return sweeps.model_directory(tmp_path / "work" / "merged")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return sweeps.model_directory(tmp_path / "work" / "adapter", b"adapter")


def register(runs: MlflowRuns, merged: Path, adapter: Path, lineage: Lineage = LINEAGE) -> RegisteredVersion:
    return register_version(runs, model="docker", merged=merged, adapter=adapter, lineage=lineage)


def candidate(runs: MlflowRuns) -> Path:
    found = find_version(runs.tracking_uri, "docker", alias="candidate")
    return version_folder(found, cache=Path("unused"))


def versions(runs: MlflowRuns) -> list[str]:
    return sorted(str(version.version) for version in runs.client.search_model_versions("name = 'docker'"))


def test_a_version_is_a_plain_directory_with_its_adapter_beside_it(
    tracked: MlflowRuns, merged: Path, adapter: Path, tmp_path: Path
) -> None:
    registered = register(tracked, merged, adapter)
    assert (registered.model, registered.version, registered.alias) == ("docker", "1", "candidate")
    assert registered.path is not None
    assert registered.path.is_relative_to(tmp_path / "artifacts")
    assert (registered.path / "model.safetensors").read_bytes() == b"weights"
    assert (registered.path.parent / "adapter" / "model.safetensors").read_bytes() == b"adapter"
    assert candidate(tracked) == registered.path


def test_a_version_says_where_it_comes_from(tracked: MlflowRuns, merged: Path, adapter: Path) -> None:
    register(tracked, merged, adapter)
    version = tracked.client.get_model_version_by_alias("docker", "candidate")
    assert version.run_id == tracked.trial_run_id(0)
    assert version.source == f"runs:/{version.run_id}/merged"
    assert version.tags == {
        "pharos.sweep": "quickstart",
        "pharos.trial": "0",
        "pharos.digest.spec": "5bec",
        "pharos.digest.data": "da7a",
        "pharos.digest.base": "ba5e",
        "pharos.digest.adapter": "ada9",
        "pharos.metric.eval_loss": "2.5",
        "pharos.metric.test_loss": "2.75",
        "pharos.version.torch": "2.13.0",
    }


def test_origin_and_files_are_kept_with_the_version_and_its_run(
    tracked: MlflowRuns, merged: Path, adapter: Path, tmp_path: Path
) -> None:
    lock = "torch==2.13.0\n"
    lineage = replace(LINEAGE, origin={"base": "Qwen/Qwen3", "revision": "ab12"}, files={"environment.txt": lock})
    register(tracked, merged, adapter, lineage)
    version = tracked.client.get_model_version_by_alias("docker", "candidate")
    assert version.tags["pharos.origin.base"] == "Qwen/Qwen3"
    assert version.tags["pharos.origin.revision"] == "ab12"
    assert version.tags["pharos.digest.environment"] == digest_of(lock)
    kept = tracked.client.download_artifacts(str(version.run_id), "environment.txt", str(tmp_path))
    assert Path(kept).read_text() == lock


def test_a_trial_registered_under_another_spec_leaves_the_files_of_its_version_alone(
    tracked: MlflowRuns, merged: Path, adapter: Path
) -> None:
    first = register(tracked, merged, adapter)
    (merged / "model.safetensors").write_bytes(b"others")
    second = register(tracked, merged, adapter, replace(LINEAGE, digests={**LINEAGE.digests, "spec": "more"}))
    assert (first.version, second.version) == ("1", "2")
    assert first.path is not None
    assert (first.path / "model.safetensors").read_bytes() == b"weights"


def test_registering_again_gives_the_same_version(tracked: MlflowRuns, merged: Path, adapter: Path) -> None:
    assert register(tracked, merged, adapter) == register(tracked, merged, adapter)
    assert versions(tracked) == ["1"]


def test_a_crash_between_version_and_alias_is_repaired(tracked: MlflowRuns, merged: Path, adapter: Path) -> None:
    register(tracked, merged, adapter)
    tracked.client.delete_registered_model_alias("docker", "candidate")
    register(tracked, merged, adapter)
    assert str(tracked.client.get_model_version_by_alias("docker", "candidate").version) == "1"
    assert versions(tracked) == ["1"]


def test_a_crash_between_upload_and_version_is_repaired(tracked: MlflowRuns, merged: Path, adapter: Path) -> None:
    tracked.client.log_artifacts(tracked.trial_run_id(0), str(merged), "merged")
    registered = register(tracked, merged, adapter)
    assert registered.path is not None
    assert sorted(path.name for path in registered.path.iterdir()) == ["config.json", "model.safetensors"]


def test_another_winner_is_another_version_and_takes_the_alias(
    tracked: MlflowRuns, merged: Path, adapter: Path
) -> None:
    first = register(tracked, merged, adapter)
    second = register(tracked, merged, adapter, replace(LINEAGE, trial=1))
    assert (first.version, second.version) == ("1", "2")
    assert candidate(tracked) == second.path
    assert first.path != second.path


def test_repeating_an_old_hand_over_does_not_take_the_alias_back(
    tracked: MlflowRuns, merged: Path, adapter: Path
) -> None:
    register(tracked, merged, adapter)
    second = register(tracked, merged, adapter, replace(LINEAGE, trial=1))
    assert register(tracked, merged, adapter).version == "1"
    assert candidate(tracked) == second.path


@pytest.mark.parametrize("name", ["pytorch_model.bin", "nested/optimizer.pt", "model.pkl"])
def test_a_pickle_is_refused_and_nothing_is_registered(
    tracked: MlflowRuns, merged: Path, adapter: Path, name: str
) -> None:
    (merged / name).parent.mkdir(exist_ok=True)
    (merged / name).write_bytes(b"pickle")
    with pytest.raises(HandOverError, match=Path(name).name):
        register(tracked, merged, adapter)
    assert versions(tracked) == []


def test_a_directory_without_weights_is_refused(tracked: MlflowRuns, merged: Path, adapter: Path) -> None:
    (adapter / "model.safetensors").unlink()
    with pytest.raises(HandOverError, match="holds no safetensors"):
        register(tracked, merged, adapter)
