"""A trial's checkpoint: one directory that any seat of any pool of any size can go on from.

    0007/step-000050/adapter_model.safetensors, adapter_config.json   PEFT's format, true rank; also the master copy
                     trainer_state.safetensors                        moments, and the gradient of an unfinished step
                     pharos_state.json                                the trial, where it stands, its best so far
                     manifest.json                                    sizes and sha256 of the others, written last

A directory appears whole or not at all, also after a power cut. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pharos.errors import StorageError
from pharos.model.adapter_bank import SeatTensors
from pharos.model.adapter_files import read_adapter, write_adapter
from pharos.plan.trial import TrialPlan

FORMAT = 1
TRAINER_STATE, PHAROS_STATE, MANIFEST = "trainer_state.safetensors", "pharos_state.json", "manifest.json"


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a trial stands: saved and loaded whole.

    step: optimizer steps done. clocks: micro-batches done. rows_done, partial_loss: of the step that has begun, those
    of its rows that are in the gradient already, and their part of its mean loss. best_loss: eval_loss beside
    best_metric. best_checkpoint: the name of a directory beside this one.
    """

    step: int = 0
    clocks: int = 0
    rows_done: int = 0
    partial_loss: float = 0.0
    best_metric: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    best_checkpoint: str | None = None

    @property
    def checkpoint_name(self) -> str:
        """step-000050; an unfinished step adds its rows, so that two rounds never share a name."""
        return f"step-{self.step:06d}" + (f"-rows-{self.rows_done:05d}" if self.rows_done else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a trial needs to go on.

    adapter: the values. state: by name (exp_avg, exp_avg_sq, grad), tensors of the same modules and shapes.
    """

    trial: TrialPlan
    progress: Progress
    adapter: SeatTensors
    state: Mapping[str, SeatTensors]


def save_checkpoint(
    directory: Path, checkpoint: Checkpoint, *, base_key: str, base_name: str, model_modules: Sequence[str]
) -> None:
    """Write a checkpoint under its final name, replacing one of that name that a lost pool left behind.

    model_modules: names of all Linear modules of the base, for the adapter's configuration.
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    hyperparameters = checkpoint.trial.hyperparameters
    write_adapter(
        temporary,
        tensors=checkpoint.adapter,
        r=hyperparameters.r,
        lora_alpha=hyperparameters.lora_alpha,
        lora_dropout=hyperparameters.lora_dropout,
        use_rslora=hyperparameters.use_rslora,
        target_modules=list(checkpoint.adapter),
        base_name=base_name,
        model_modules=model_modules,
    )
    save_file(_flatten(checkpoint.state), temporary / TRAINER_STATE)
    state = {
        "format": FORMAT,
        "base_key": base_key,
        "trial": checkpoint.trial.to_json(),
        "progress": asdict(checkpoint.progress),
    }
    (temporary / PHAROS_STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    files = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
    (temporary / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n", encoding="utf-8")
    _flush(temporary)
    if directory.exists():
        shutil.rmtree(directory)
    temporary.rename(directory)
    _flush_names(directory.parent)


def load_checkpoint(directory: Path, *, trial: TrialPlan, base_key: str) -> Checkpoint:
    """Read a checkpoint of this trial. Raises StorageError if it is damaged, or another trial's or another base's."""
    _verify(directory)
    state = json.loads((directory / PHAROS_STATE).read_text(encoding="utf-8"))
    saved = TrialPlan.from_json(state["trial"])
    if state["base_key"] != base_key:
        raise StorageError(f"{directory}: base_key={state['base_key']} is not this pool's, {base_key}.")
    if (saved.number, saved.hyperparameters) != (trial.number, trial.hyperparameters):
        raise StorageError(
            f"{directory}: holds trial {saved.number} with other hyperparameters, not trial {trial.number}."
        )
    return Checkpoint(
        trial=saved,
        progress=Progress(**state["progress"]),
        adapter=read_adapter(directory).tensors,
        state=_unflatten(load_file(directory / TRAINER_STATE)),
    )


def _verify(directory: Path) -> None:
    """Every file of the manifest is there, with its size and sha256."""
    remedy = "Delete this directory: the trial goes on from an earlier checkpoint, or starts again."
    try:
        files = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        raise StorageError(f"{directory}: no {MANIFEST}, so this is no whole checkpoint. {remedy}") from None
    for name, expected in files.items():
        path = directory / name
        if not path.exists() or _fingerprint(path) != expected:
            raise StorageError(f"{path}: missing, or not what was written there. {remedy}")


def _flush(directory: Path) -> None:
    """Bring the files to the disk: a rename may reach it before them, and name empty files after a power cut."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _flush_names(directory)


def _flush_names(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fingerprint(path: Path) -> dict[str, str | int]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flatten(state: Mapping[str, SeatTensors]) -> dict[str, torch.Tensor]:
    """Names such as exp_avg:model.layers.0.mlp.up_proj:A."""
    return {
        f"{name}:{module}:{part}": tensor.contiguous()
        for name, tensors in state.items()
        for module, pair in tensors.items()
        for part, tensor in zip("AB", pair, strict=True)
    }


def _unflatten(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, SeatTensors]:
    state: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]] = {}
    for key, a in tensors.items():
        name, module, part = key.split(":")
        if part == "A":
            state.setdefault(name, {})[module] = (a, tensors[f"{name}:{module}:B"])
    return state
