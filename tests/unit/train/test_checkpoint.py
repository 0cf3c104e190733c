"""Checkpoints: whole or not at all, refused when damaged or another trial's, only latest and best kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.plans import HYPERPARAMETERS

from pharos.errors import StorageError
from pharos.model.adapter_bank import fresh_adapter
from pharos.plan.trial import TrialPlan
from pharos.train.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from pharos.train.checkpoint_place import CheckpointPlace

TARGETS = {"model.layers.0.q_proj": (6, 4), "model.layers.0.up_proj": (6, 8)}
PROGRESS = Progress(step=50, clocks=151, rows_done=2, partial_loss=0.25, best_metric=1.5, best_step=40)


@pytest.fixture
def checkpoint() -> Checkpoint:
    chosen = replace(
        HYPERPARAMETERS,
        r=3,
        lora_alpha=6,
        lora_dropout=0.1,
        learning_rate=1e-4,
        warmup_ratio=0.1,
        num_train_epochs=2,
        batch_size=6,
        seed=5,
    )
    plan = TrialPlan(number=7, params={"lora.r": 3}, hyperparameters=chosen, num_steps=100, clocks_per_step=3)
    adapter, moments = (fresh_adapter(TARGETS, r=3, seed=seed) for seed in (5, 6))
    return Checkpoint(trial=plan, progress=replace(PROGRESS), adapter=adapter, state={"exp_avg": moments})


def save(directory: Path, checkpoint: Checkpoint) -> None:
    save_checkpoint(directory, checkpoint, base_key="key", base_name="/base", model_modules=[*TARGETS, "lm_head"])


def test_what_was_saved_comes_back(tmp_path: Path, checkpoint: Checkpoint) -> None:
    directory = tmp_path / "0007" / checkpoint.progress.checkpoint_name
    save(directory, checkpoint)
    loaded = load_checkpoint(directory, trial=checkpoint.trial, base_key="key")
    assert directory.name == "step-000050-rows-00002"
    assert (loaded.trial, loaded.progress) == (checkpoint.trial, PROGRESS)
    for saved, back in ((checkpoint.adapter, loaded.adapter), (checkpoint.state["exp_avg"], loaded.state["exp_avg"])):
        assert set(saved) == set(back)
        assert all(torch.equal(a, b) for name in saved for a, b in zip(saved[name], back[name], strict=True))
    assert sorted(path.name for path in directory.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "pharos_state.json",
        "trainer_state.safetensors",
    ]
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_saving_again_replaces_what_a_lost_pool_left(tmp_path: Path, checkpoint: Checkpoint) -> None:
    save(tmp_path / "step-000050", checkpoint)
    (tmp_path / "step-000050" / "manifest.json").unlink()
    save(tmp_path / "step-000050", checkpoint)
    load_checkpoint(tmp_path / "step-000050", trial=checkpoint.trial, base_key="key")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "trainer_state.safetensors", "pharos_state.json"])
def test_a_damaged_file_is_named(tmp_path: Path, checkpoint: Checkpoint, name: str) -> None:
    directory = tmp_path / "step-000050"
    save(directory, checkpoint)
    content = bytearray((directory / name).read_bytes())
    content[-2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(StorageError, match=f"{name}: missing, or not what was written there"):
        load_checkpoint(directory, trial=checkpoint.trial, base_key="key")


def test_a_checkpoint_without_manifest_is_none(tmp_path: Path, checkpoint: Checkpoint) -> None:
    save(tmp_path / "step-000050", checkpoint)
    (tmp_path / "step-000050" / "manifest.json").unlink()
    with pytest.raises(StorageError, match="no manifest.json, so this is no whole checkpoint"):
        load_checkpoint(tmp_path / "step-000050", trial=checkpoint.trial, base_key="key")


def test_another_base_or_another_trial_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    directory, plan = tmp_path / "step-000050", checkpoint.trial
    save(directory, checkpoint)
    with pytest.raises(StorageError, match="base_key=key is not this pool's, other"):
        load_checkpoint(directory, trial=plan, base_key="other")
    changed = replace(plan, hyperparameters=replace(plan.hyperparameters, learning_rate=2e-4))
    with pytest.raises(StorageError, match="holds trial 7 with other hyperparameters"):
        load_checkpoint(directory, trial=changed, base_key="key")


def test_all_but_latest_and_best_are_deleted(tmp_path: Path) -> None:
    for name in ("step-000010", "step-000020", "step-000030", ".step-000040.123", "notes"):
        (tmp_path / "0007" / name).mkdir(parents=True)
    CheckpointPlace(str(tmp_path)).keep_only({7: {"step-000010", "step-000030"}})
    assert sorted(path.name for path in (tmp_path / "0007").iterdir()) == ["notes", "step-000010", "step-000030"]


def test_the_manifest_names_every_other_file(tmp_path: Path, checkpoint: Checkpoint) -> None:
    save(tmp_path / "step-000050", checkpoint)
    files = json.loads((tmp_path / "step-000050" / "manifest.json").read_text())["files"]
    for name, facts in files.items():
        assert (tmp_path / "step-000050" / name).stat().st_size == facts["bytes"]
    assert len(files) == 4
