"""An adapter on disk, in PEFT's format: adapter_model.safetensors and adapter_config.json.

Stock PEFT and vLLM load what is written here. Only safetensors are read; what plain LoRA does not cover (DoRA, trained
biases, ranks that differ by module) is refused: what may be merged beyond it stands in adapter_updates.py.

Shapes: A (r, d_in), B (d_out, r); the update of a weight W (d_out, d_in) is scaling * B @ A.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pharos.errors import HandOverError
from pharos.model.facts import select_targets

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX, A_SUFFIX, B_SUFFIX = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# Keys of adapter_config.json that change what the tensors mean, with the one value of each that is plain LoRA.
PLAIN_LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "lora_bias": False,
    "use_dora": False,
    "use_qalora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "layer_replication": None,
    "target_parameters": None,
    "trainable_token_indices": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTensors:
    """An adapter as read: `tensors` is module name -> (A, B)."""

    tensors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    r: int
    lora_alpha: float
    lora_dropout: float
    use_rslora: bool
    base_name: str | None
    revision: str | None

    @property
    def scaling(self) -> float:
        """lora_alpha / r, or lora_alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023)."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def write_adapter(
    directory: Path,
    *,
    tensors: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    r: int,
    lora_alpha: float,
    lora_dropout: float,
    use_rslora: bool,
    target_modules: Sequence[str],
    base_name: str,
    revision: str | None = None,
    model_modules: Sequence[str] | None = None,
) -> None:
    """Write an adapter into `directory`, each file whole or not at all, the weights before the config.

    Args:
        tensors: full module name -> (A, B), at the adapter's true rank.
        target_modules: the full names of the modules that carry the adapter: those of `tensors`.
        model_modules: the full names of all Linear modules of the base. With them the config names the modules by their
            last parts (q_proj) if these choose the same ones; without them, or if they do not, by full names.

    Raises HandOverError if the names or shapes contradict each other.
    """
    if set(target_modules) != set(tensors):
        difference = sorted(set(target_modules) ^ set(tensors))
        raise HandOverError(f"The adapter's tensors and its target modules differ in {', '.join(difference[:3])}.")
    for module, (a, b) in tensors.items():
        _check_shapes(module, a, b, r=r)
    contents = {  # copies, since safetensors refuses tensors that share memory, as slices of one stack may
        f"{PREFIX}{module}{suffix}": tensor.detach().to("cpu", copy=True).contiguous()
        for module, pair in tensors.items()
        for suffix, tensor in zip((A_SUFFIX, B_SUFFIX), pair, strict=True)
    }
    config = PLAIN_LORA | {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "revision": revision,
        "inference_mode": True,
        "r": r,
        "lora_alpha": lora_alpha,
        "lora_dropout": lora_dropout,
        "use_rslora": use_rslora,
        "init_lora_weights": True,
        "target_modules": _shortest_names(target_modules, model_modules),
    }
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f"{ADAPTER_WEIGHTS}.unfinished"
    save_file(contents, unfinished, metadata={"format": "pt"})
    os.replace(unfinished, directory / ADAPTER_WEIGHTS)
    unfinished = directory / f"{ADAPTER_CONFIG}.unfinished"
    unfinished.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(unfinished, directory / ADAPTER_CONFIG)


def read_adapter(directory: Path) -> AdapterTensors:
    """The adapter in `directory`, its tensors on the CPU in the dtype they were stored in.

    Raises HandOverError if a file is missing or broken, if it is more than plain LoRA, or if a shape is wrong.
    """
    config, contents = read_adapter_files(directory)
    for key, plain in PLAIN_LORA.items():
        if config.get(key) and config[key] != plain:
            raise HandOverError(
                f"{directory / ADAPTER_CONFIG}: {key}={config[key]} is more than plain LoRA, which is all that Pharos "
                "trains and compares."
            )
    weights = directory / ADAPTER_WEIGHTS
    tensors = {}
    for key in [key for key in contents if key.startswith(PREFIX) and key.endswith(A_SUFFIX)]:
        module = key.removeprefix(PREFIX).removesuffix(A_SUFFIX)
        a, b = contents.pop(key), contents.pop(f"{PREFIX}{module}{B_SUFFIX}", None)
        if b is None:
            raise HandOverError(f"{weights} holds A of {module}, but no B.")
        _check_shapes(module, a, b, r=config["r"])
        tensors[module] = (a, b)
    if contents:
        raise HandOverError(f"{weights} holds {next(iter(contents))}, which is no A or B of a LoRA module.")
    if not tensors:
        raise HandOverError(f"{weights} holds no tensors.")
    return AdapterTensors(
        tensors=tensors,
        r=config["r"],
        lora_alpha=config["lora_alpha"],
        lora_dropout=config.get("lora_dropout", 0.0),
        use_rslora=config.get("use_rslora", False),
        base_name=config.get("base_model_name_or_path"),
        revision=config.get("revision"),
    )


def read_adapter_files(directory: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The configuration of an adapter of any kind of LoRA, and its tensors by the names they have in the file.

    Raises HandOverError if a file is missing or broken, or is of no LoRA.
    """
    config = _read_config(directory)
    weights = directory / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise HandOverError(f"{directory} has no {ADAPTER_WEIGHTS}. Adapters are read from safetensors only.")
    try:
        with safe_open(weights, framework="pt") as file:
            return config, {key: file.get_tensor(key) for key in sorted(file.keys())}
    except SafetensorError as error:
        raise HandOverError(f"{weights} is truncated or no safetensors file: {error}") from error


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / ADAPTER_CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HandOverError(f"{directory} is no adapter: it has no {ADAPTER_CONFIG}.") from error
    except ValueError as error:
        raise HandOverError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("r"), int) or "lora_alpha" not in config:
        raise HandOverError(f"{file} is no LoRA configuration: it lacks r or lora_alpha.")
    return config


def _check_shapes(module: str, a: torch.Tensor, b: torch.Tensor, *, r: int) -> None:
    shapes = f"A {tuple(a.shape)}, B {tuple(b.shape)}"
    if a.numel() == 0 or b.numel() == 0:  # what a ZeRO-3 partitioned parameter looks like when nobody gathered it
        raise HandOverError(f"The adapter's tensors of {module} are empty: {shapes}.")
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != r or b.shape[1] != r:
        raise HandOverError(f"The adapter's tensors of {module} do not have rank r={r}: {shapes}.")


def _shortest_names(modules: Collection[str], model_modules: Sequence[str] | None) -> list[str]:
    suffixes = sorted({module.rsplit(".", 1)[-1] for module in modules})
    if model_modules and set(select_targets(model_modules, suffixes)) == set(modules):
        return suffixes
    return sorted(modules)
