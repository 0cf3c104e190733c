"""What a person writes leads to a model's files, or to one message that says what there is instead."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.unit.track import sweeps

from pharos.errors import BaseModelError, ModelError, TrackingError
from pharos.handover.references import find_model
from pharos.model.facts import directory_digest
from pharos.plan.paths import SweepPaths, tracking_uri_of
from pharos.plan.trial import Repeat
from pharos.track.event_log import EventLog
from pharos.track.mlflow_client import connect
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.registry import Lineage, register_version


def write_model(directory: Path, hidden: int = 2) -> Path:
    """A directory that its headers show to be a model; nothing could be generated with it."""
    directory.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden}
    (directory / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.zeros((hidden, 2), dtype=np.float32)}, directory / "model.safetensors")
    return directory


def write_adapter(directory: Path, base: Path | str | None) -> Path:
    directory.mkdir(parents=True)
    config = {"r": 1, "lora_alpha": 1, "base_model_name_or_path": None if base is None else str(base)}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def write_sweep(storage: Path) -> Path:
    """Two trials, of which 0 has kept an adapter and 1 none; their base lies in the storage's cache."""
    base = write_model(storage / "cache" / "tiny-abc")
    paths = SweepPaths(storage, sweeps.SWEEP)
    adapter = write_adapter(paths.trials / "0000" / "step-000020", base)
    started = replace(sweeps.started(), digests={"data": "da7a", "base": directory_digest(base)})
    reported = replace(sweeps.reported(0, 1, 20), best_checkpoint=str(adapter))
    EventLog(paths.events).append([started, sweeps.created(0), sweeps.created(1), reported])
    return paths.root


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    write_sweep(tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def registered(storage: Path, empty_store: Path) -> Path:
    """The storage, with docker/1 registered in it."""
    shutil.copy(empty_store, storage / "mlflow.db")
    runs = MlflowRuns(tracking_uri_of(storage), "pharos", artifact_root=storage / "mlartifacts")
    runs.attach(sweeps.SWEEP, sweeps.START_S)
    runs.write([sweeps.started(), sweeps.created(0)])
    merged = write_model(storage / sweeps.SWEEP / "merged")
    lineage = Lineage(sweep=sweeps.SWEEP, trial=0, digests={"spec": "5bec"})
    register_version(runs, model="docker", merged=merged, adapter=merged, lineage=lineage)
    return storage


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


def test_a_version_is_found_by_alias_and_number_and_as_mlflow_writes_it(registered: Path) -> None:
    found = find_model("docker@candidate", storage=registered)
    assert (found.shown, found.model, found.version, found.adapter_dir) == ("docker/1", "docker", "1", None)
    assert (found.model_dir / "model.safetensors").is_file()
    assert found.run_id
    for other in ("docker/1", "models:/docker/1", "models:/docker@candidate"):
        assert find_model(other, storage=registered) == found


def test_a_directory_named_like_a_version_comes_first_and_a_prefix_says_otherwise(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = write_model(tmp_path / "docker" / "1")
    assert find_model("docker/1", storage=registered).model_dir == directory
    assert find_model("models:/docker/1", storage=registered).model == "docker"


def test_an_adapter_lies_over_the_base_that_it_names_or_that_is_given(tmp_path: Path, storage: Path) -> None:
    base, other = write_model(tmp_path / "base"), write_model(tmp_path / "other")
    adapter = write_adapter(tmp_path / "adapter", base)
    found = find_model(str(adapter), storage=storage)
    assert (found.model_dir, found.adapter_dir) == (base, adapter)
    assert find_model(str(adapter), storage=storage, base=other).model_dir == other
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="its configuration names .*/base, which is no directory. Give --base."):
        find_model(str(adapter), storage=storage)
    with pytest.raises(ModelError, match="its configuration names none. Give --base."):
        find_model(str(write_adapter(tmp_path / "nameless", None)), storage=storage)


def test_a_base_for_a_model_that_needs_none_is_refused(tmp_path: Path, registered: Path) -> None:
    base = write_model(tmp_path / "base")
    for reference in (str(base), "docker/1"):
        with pytest.raises(ModelError, match="it needs no base. Leave --base out."):
            find_model(reference, storage=registered, base=base)


def test_a_trial_is_found_in_the_storage_and_by_the_path_of_its_sweep(storage: Path, tmp_path: Path) -> None:
    found = find_model("quickstart-0000", storage=storage)
    assert (found.shown, found.sweep, found.trial) == ("quickstart-0000", "quickstart", 0)
    assert found.model_dir == storage / "cache" / "tiny-abc"
    assert found.adapter_dir == storage / "quickstart" / "trials" / "0000" / "step-000020"
    assert find_model(f"{storage}/quickstart-0000", storage=tmp_path / "another") == found


def test_a_trial_brings_the_template_that_its_rows_were_written_with(storage: Path) -> None:
    assert find_model("quickstart-0000", storage=storage).chat_template is None
    template = storage / "cache" / "da7a" / "chat_template.jinja"
    template.parent.mkdir()
    template.write_text("{{ messages }}")
    assert find_model("quickstart-0000", storage=storage).chat_template == template
    adapter = storage / "quickstart" / "trials" / "0000" / "step-000020"
    assert find_model(str(adapter), storage=storage).chat_template == template


def test_a_repeat_of_a_trial_is_found_by_its_seed(storage: Path) -> None:
    number = Repeat(of=0, seed=2).number
    sweep, base = storage / "quickstart", storage / "cache" / "tiny-abc"
    adapter = write_adapter(sweep / "trials" / "repeat" / "step-000020", base)
    reported = replace(sweeps.reported(number, 1, 20), best_checkpoint=str(adapter))
    EventLog(sweep / "events").append([sweeps.created(number), reported])
    found = find_model("quickstart-0000-seed2", storage=storage)
    assert (found.shown, found.trial, found.adapter_dir) == ("quickstart-0000-seed2", number, adapter)


def test_a_storage_may_move_with_all_that_is_in_it(storage: Path, tmp_path: Path) -> None:
    moved = storage.rename(tmp_path / "elsewhere")
    found = find_model("quickstart-0000", storage=moved)
    assert found.model_dir == moved / "cache" / "tiny-abc"
    assert found.adapter_dir is not None
    assert found.adapter_dir.is_relative_to(moved)


def test_a_base_that_moved_or_changed_is_told_of(storage: Path, tmp_path: Path) -> None:
    base = (storage / "cache" / "tiny-abc").rename(tmp_path / "base")
    with pytest.raises(ModelError, match="its base should be in .*/tiny-abc, which holds no model. .* --base"):
        find_model("quickstart-0000", storage=storage)
    assert find_model("quickstart-0000", storage=storage, base=base).model_dir == base
    changed = write_model(tmp_path / "changed", hidden=4)
    with pytest.raises(ModelError, match="was trained on a base with digest .*/changed holds another one"):
        find_model("quickstart-0000", storage=storage, base=changed)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("quickstart-0001", "quickstart-0001 is WAITING and has kept no adapter yet"),
        ("quickstart-0009", "has no such trial. There is quickstart-0000 to quickstart-0001."),
        ("quickstart-0000-seed2", "quickstart-0000-seed2: quickstart has no such trial. There is quickstart-0000 to"),
        ("quickstrat-0001", "no such model. .* Did you mean quickstart-0001[?]"),
        ("quickstart", "quickstart is a sweep of .*: name one of its trials, as quickstart-0000."),
        ("nothing", "no such model. Write NAME@ALIAS.* Sweeps in .*: quickstart."),
        ("models:/docker", "write models:/NAME@ALIAS or models:/NAME/3"),
    ],
)
def test_what_cannot_be_found_is_told_with_what_there_is(storage: Path, reference: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_model(reference, storage=storage)


def test_a_directory_that_is_no_model_is_told_of(storage: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="quickstart is a sweep, not a model. Name one of its trials, as .*-0000."):
        find_model(str(storage / "quickstart"), storage=storage)
    with pytest.raises(BaseModelError, match="has no config.json"):
        find_model(str(tmp_path), storage=storage)
    cut = write_model(tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(BaseModelError, match="truncated"):
        find_model(str(cut), storage=storage)


def test_a_registry_that_is_not_there_is_told_of(storage: Path) -> None:
    with pytest.raises(TrackingError, match="there is no MLflow store at"):
        find_model("docker@candidate", storage=storage)
