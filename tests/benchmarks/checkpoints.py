"""A checkpoint of one trial: what flushing it to the disk costs, and what an object store instead of a disk costs.

Adapters of r 16 on all linear layers of 0.5B-shaped and 1.5B-shaped models, moments beside them, made-up values. The
store is moto's server on loopback in this process: its figures say what Pharos adds to a request, not what a cloud's
store takes, which is mostly the distance.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any
from unittest.mock import patch

import torch
from tests.benchmarks.reporting import Options, Report, Table
from tests.support.object_store import CREDENTIALS, s3_server
from tests.support.plans import HYPERPARAMETERS

from pharos.model.adapter_bank import fresh_adapter
from pharos.plan.trial import TrialPlan
from pharos.train.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from pharos.train.checkpoint_place import CheckpointPlace

REPETITIONS = 5
SHAPES = {"0.5B": (24, 896, 4864, 128), "1.5B": (28, 1536, 8960, 256)}
SMALL = {"small": (2, 32, 64, 16)}


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    os.environ.update(CREDENTIALS)
    shapes = SMALL if options.smoke else SHAPES
    times = 2 if options.smoke else REPETITIONS
    with tempfile.TemporaryDirectory(prefix="pharos-checkpoints-") as name, s3_server() as bucket:
        rows = [_row(shape, sizes, Path(name), bucket.uri(shape), times) for shape, sizes in shapes.items()]
    return Report(
        settings={"r": 16, "repetitions": times, "file system of the temporary directory": _file_system()},
        tables=[Table(title="seconds for one checkpoint, median", rows=rows)],
        quality={"every checkpoint was read back from the store, and its digests were right": True},
        notes=[
            "flushed: every file and both directories by fsync, around the rename; what Pharos does on a disk",
            "store: written to a temporary directory, then four files at once and the manifest last, over loopback",
        ],
    )


def _row(shape: str, sizes: tuple[int, int, int, int], place: Path, uri: str, times: int) -> dict[str, Any]:
    checkpoint = _checkpoint(*sizes)
    local, remote = CheckpointPlace(str(place / shape)), CheckpointPlace(uri)

    def save(to: CheckpointPlace, step: int) -> None:
        with to.writing() as trials:
            _save(trials / "0001" / f"step-{step:06d}", checkpoint)
        to.keep_only({1: {f"step-{step:06d}"}})

    def save_unflushed(step: int) -> None:
        with patch("os.fsync"):
            save(local, step)

    figures = {
        "unflushed s": _median(save_unflushed, times),
        "flushed s": _median(lambda step: save(local, step), times),
        "store s": _median(lambda step: save(remote, step), times),
        "back from store s": _median(lambda step: _load(remote, times - 1, checkpoint), times),
    }
    size = sum(file.stat().st_size for file in (place / shape).rglob("*") if file.is_file())
    shutil.rmtree(place / shape)
    return {"model": shape, "MB": round(size / 1e6, 1)} | {name: round(value, 4) for name, value in figures.items()}


def _median(call: Callable[[int], None], times: int) -> float:
    taken = []
    for step in range(times):
        started = monotonic()
        call(step)
        taken.append(monotonic() - started)
    return median(taken)


def _save(directory: Path, checkpoint: Checkpoint) -> None:
    save_checkpoint(directory, checkpoint, base_key="key", base_name="/base", model_modules=list(checkpoint.adapter))


def _load(place: CheckpointPlace, step: int, checkpoint: Checkpoint) -> None:
    with place.reading(f"0001/step-{step:06d}") as directory:
        load_checkpoint(directory, trial=checkpoint.trial, base_key="key")


def _checkpoint(layers: int, hidden: int, intermediate: int, key_values: int) -> Checkpoint:
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, key_values),
        "self_attn.v_proj": (hidden, key_values),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, intermediate),
        "mlp.up_proj": (hidden, intermediate),
        "mlp.down_proj": (intermediate, hidden),
    }
    targets = {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
    adapter, first, second = (fresh_adapter(targets, r=16, seed=seed) for seed in (0, 1, 2))
    hyperparameters = replace(HYPERPARAMETERS, r=16, lora_alpha=16)
    plan = TrialPlan(number=1, params={}, hyperparameters=hyperparameters, num_steps=100, clocks_per_step=1)
    return Checkpoint(
        trial=plan,
        progress=Progress(step=50, clocks=50),
        adapter=adapter,
        state={"exp_avg": first, "exp_avg_sq": second},
    )


def _file_system() -> str:
    here = Path(tempfile.gettempdir()).resolve()
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max(((place, kind) for place, kind in mounts if here.is_relative_to(place)), key=lambda one: len(one[0]))[1]
