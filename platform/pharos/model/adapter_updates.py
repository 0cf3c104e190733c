"""What an adapter does to the weights of its base: everything that PEFT's LoRA may hold and that can be merged.

Wider than adapter_files.py, which reads what Pharos trains: ranks and alphas by module, DoRA, embeddings, weights that
stock PEFT keeps along (modules_to_save). What cannot be merged, or is not known to be harmless, is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pharos.errors import HandOverError
from pharos.model.adapter_files import A_SUFFIX, ADAPTER_CONFIG, ADAPTER_WEIGHTS, B_SUFFIX, PREFIX, read_adapter_files

EMBEDDING_A, EMBEDDING_B = ".lora_embedding_A", ".lora_embedding_B"
MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")
BASE_LAYER = ".base_layer"
# Keys of adapter_config.json that say nothing of what the tensors mean, or that are read below.
READ = {"peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"}
HARMLESS = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "lora_dropout"),
    *("megatron_config", "megatron_core", "runtime_config", "qalora_group_size", "ensure_weight_tying"),
    *("init_lora_weights", "eva_config", "corda_config", "loftq_config"),  # checked by init_lora_weights
}
# Ways to begin that leave the base as it is. PiSSA, OLoRA, LoftQ and their like take something out of the base, which
# PEFT does again when it loads such an adapter: W + scaling * B @ A on the original W would be wrong.
PLAIN_BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What becomes of one weight W of module `module`.

    W, or `whole` in its place, + scaling * B @ A, transposed where W lies as (d_in, d_out); then each row is brought to
    its `magnitude` (DoRA). a: (r, d_in), b: (d_out, r), both or neither; magnitude: (d_out,).
    """

    module: str
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    scaling: float = 1.0
    is_transposed: bool = False
    magnitude: torch.Tensor | None = None
    whole: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """What W must have."""
        if self.a is None or self.b is None:
            assert self.whole is not None
            return tuple(self.whole.shape)
        shape = (self.b.shape[0], self.a.shape[1])
        return shape[::-1] if self.is_transposed else shape

    def factors(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(left, right) with which W changes by scaling * left @ right; a block of W's rows needs those of left."""
        if self.a is None or self.b is None:
            return None
        return (self.a.T, self.b.T) if self.is_transposed else (self.b, self.a)


def read_updates(directory: Path) -> dict[str, Update]:
    """Parameter name (a module's name + .weight or .bias) -> what the adapter does to it.

    Raises HandOverError if a file is missing or broken, if the adapter is of a kind that cannot be merged, or if its
    tensors contradict each other or its configuration.
    """
    config, contents = read_adapter_files(directory)
    _refuse_unknown(config, directory / ADAPTER_CONFIG)
    weights = directory / ADAPTER_WEIGHTS
    updates: dict[str, Update] = {}
    for a_suffix, b_suffix in ((A_SUFFIX, B_SUFFIX), (EMBEDDING_A, EMBEDDING_B)):
        for key in [key for key in contents if key.startswith(PREFIX) and key.endswith(a_suffix)]:
            module = key.removeprefix(PREFIX).removesuffix(a_suffix)
            a, b = contents.pop(key), contents.pop(f"{PREFIX}{module}{b_suffix}", None)
            if b is None:
                raise HandOverError(f"{weights} holds A of {module}, but no B.")
            found = [contents.pop(name) for suffix in MAGNITUDES if (name := f"{PREFIX}{module}{suffix}") in contents]
            updates[f"{module}.weight"] = _update(
                module, a, b, found[0] if found else None, config, is_embedding=a_suffix == EMBEDDING_A
            )
    for key in list(contents):
        name = key.removeprefix(PREFIX)
        if not key.startswith(PREFIX) or not name.endswith((".weight", ".bias")) or "lora_" in name:
            raise HandOverError(f"{weights} holds {key}, which no adapter that can be merged has.")
        _add_whole(updates, name.replace(f"{BASE_LAYER}.", "."), contents.pop(key))
    if not updates:
        raise HandOverError(f"{weights} holds no tensors.")
    return updates


def _refuse_unknown(config: Mapping[str, Any], file: Path) -> None:
    """Raise HandOverError for each setting that is set and that merging by the formula above would pass over."""
    if str(config.get("peft_type", "LORA")) != "LORA":
        raise HandOverError(f"{file}: peft_type={config['peft_type']} cannot be merged: only LORA can.")
    if config.get("init_lora_weights") not in PLAIN_BEGINNINGS:
        raise HandOverError(
            f"{file}: init_lora_weights={config['init_lora_weights']} changes the base, so the adapter alone does not "
            "say what to merge. Convert it to plain LoRA when saving (PEFT: path_initial_model_for_weight_conversion)."
        )
    for key, value in config.items():
        is_plain = not value or (key == "bias" and value == "none")
        if key not in READ | HARMLESS and not is_plain:
            raise HandOverError(
                f"{file}: {key}={value} cannot be merged. What can: LoRA, rank-stabilised LoRA and DoRA, with ranks "
                "and alphas by module, on Linear and embedding layers, and modules_to_save."
            )
    if config.get("use_dora") and config.get("fan_in_fan_out"):
        raise HandOverError(f"{file}: use_dora and fan_in_fan_out together cannot be merged. Merge with PEFT itself.")


def _update(
    module: str,
    a: torch.Tensor,
    b: torch.Tensor,
    magnitude: torch.Tensor | None,
    config: Mapping[str, Any],
    *,
    is_embedding: bool,
) -> Update:
    r = int(_of_module(config.get("rank_pattern"), module, config["r"]))
    alpha = float(_of_module(config.get("alpha_pattern"), module, config["lora_alpha"]))
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != r or b.shape[1] != r or 0 in (*a.shape, *b.shape):
        raise HandOverError(
            f"The adapter's tensors of {module} do not have rank r={r}: A {tuple(a.shape)}, B {tuple(b.shape)}."
        )
    is_dora = bool(config.get("use_dora"))
    if is_dora and is_embedding:
        raise HandOverError(f"The adapter is DoRA on the embedding {module}, which cannot be merged. Merge with PEFT.")
    if is_dora != (magnitude is not None):
        raise HandOverError(
            f"The adapter has {'no' if is_dora else 'a'} magnitude of {module}, though use_dora={is_dora}."
        )
    if magnitude is not None and tuple(magnitude.shape) != (b.shape[0],):
        raise HandOverError(f"The adapter's magnitude of {module} is {tuple(magnitude.shape)}, not ({b.shape[0]},).")
    return Update(
        module=module,
        a=a,
        b=b,
        scaling=alpha / (math.sqrt(r) if config.get("use_rslora") else r),
        is_transposed=is_embedding or bool(config.get("fan_in_fan_out")),
        magnitude=magnitude,
    )


def _add_whole(updates: dict[str, Update], name: str, whole: torch.Tensor) -> None:
    """A weight that the adapter brings along takes the place of the base's; a LoRA on it applies on top."""
    module = name.rpartition(".")[0]
    before = updates.get(name)
    if before is None:
        updates[name] = Update(module=module, whole=whole)
        return
    if tuple(whole.shape) != before.shape:
        raise HandOverError(
            f"The adapter holds {name} as {tuple(whole.shape)} and a LoRA on it for {before.shape}: they do not fit."
        )
    updates[name] = Update(
        module=module,
        a=before.a,
        b=before.b,
        scaling=before.scaling,
        is_transposed=before.is_transposed,
        magnitude=before.magnitude,
        whole=whole,
    )


def _of_module(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value for a module by rank_pattern or alpha_pattern, as PEFT reads it: the first key that matches its end."""
    if not pattern:
        return default
    from peft.utils.other import get_pattern_key  # some 300 MB of memory, so only where it is needed

    return pattern.get(get_pattern_key(list(pattern), module), default)
