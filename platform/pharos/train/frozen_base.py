"""The frozen base model of a pool: whole on every rank, or sharded over the ranks with DeepSpeed ZeRO-3.

The ZeRO-3 part rests on internals of DeepSpeed 0.19 (an engine without optimizer, its hooks and its coordinator);
tests/equality/test_zero3.py is the contract. Adapters and losses are not known here.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from pharos.errors import BaseModelError
from pharos.train.group import Group
from pharos.train.stopwatch import Stopwatch

REUSE_DISTANCE = 50_000_000
"""Parameters: gathered ones that are used again within so many are kept, so a tiny base is gathered once a clock."""
PREFETCH_BUCKET = 50_000_000
"""Parameters that ZeRO-3 gathers ahead of their use."""
MAX_LIVE_PARAMETERS = 500_000_000
"""Parameters that may be gathered at a time within a clock; between clocks none are."""


class FrozenBase(Protocol):
    """A causal language model that takes no gradient of its own.

    `module` is what forward passes go through, the same number of times on all ranks.
    """

    module: nn.Module

    def release(self) -> None:
        """End a clock or an evaluation: hold no more of the base than this rank's share."""

    def parameter_bytes_held(self) -> int:
        """Bytes of base parameters that are in this rank's memory now."""

    def time_gathers(self, stopwatch: Stopwatch) -> None:
        """Have the waiting for gathered parameters counted as such, on the clocks that are timed."""


class ReplicatedBase:
    """The whole base on every rank."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def release(self) -> None:
        """Nothing was gathered."""

    def parameter_bytes_held(self) -> int:
        return sum(parameter.nbytes for parameter in self.module.parameters())

    def time_gathers(self, stopwatch: Stopwatch) -> None:
        """There are none."""


class Zero3Base:
    """The base sharded over all ranks; a module's parameters are gathered while it computes, forward and backward."""

    def __init__(self, engine: Any) -> None:
        self._offload = engine.optimizer
        self.module = engine.module

    def release(self) -> None:
        # Modules whose input takes no gradient (the first layer's) never see the end of their backward pass.
        self._offload.release_backward_leftovers()
        self._offload.partition_all_parameters()

    def parameter_bytes_held(self) -> int:
        return sum(
            parameter.ds_tensor.nbytes + parameter.untyped_storage().nbytes() for parameter in self.module.parameters()
        )

    def time_gathers(self, stopwatch: Stopwatch) -> None:
        # Every hook that needs a module's parameters, before its forward and its backward pass, waits for them here.
        coordinator = self._offload.get_param_coordinator()
        fetch = coordinator.fetch_sub_module

        def timed_fetch(module: nn.Module, forward: bool) -> None:
            interrupted = stopwatch.enter("gather")
            fetch(module, forward)
            stopwatch.enter(interrupted)

        coordinator.fetch_sub_module = timed_fetch


def load_base(
    directory: Path,
    *,
    dtype: torch.dtype,
    sharding: str,
    activation_checkpointing: bool,
    trust_remote_code: bool,
    group: Group,
) -> FrozenBase:
    """Load a causal language model from a local directory, frozen. sharding: zero3 or replicate, as in PoolSettings.

    Raises BaseModelError if the model mixes rows of a batch, or cannot checkpoint activations when asked to.
    """
    config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    _refuse_routing(config, directory)
    _turn_dropout_off(config)
    arguments = {"config": config, "dtype": dtype, "trust_remote_code": trust_remote_code}
    if sharding == "replicate":
        model = AutoModelForCausalLM.from_pretrained(directory, **arguments).to(group.device)
        return ReplicatedBase(freeze(model, directory, activation_checkpointing=activation_checkpointing))

    deepspeed, settings = _deepspeed(group), zero3_settings(dtype, group)
    from transformers.integrations import HfDeepSpeedConfig

    sharded_loading = HfDeepSpeedConfig(settings)  # while it lives, from_pretrained shards each weight as it is read
    model = AutoModelForCausalLM.from_pretrained(directory, **arguments)
    del sharded_loading
    engine, *_ = deepspeed.initialize(
        model=freeze(model, directory, activation_checkpointing=activation_checkpointing), config=settings
    )
    base = Zero3Base(engine)
    base.release()
    return base


def freeze(model: nn.Module, directory: Path, *, activation_checkpointing: bool) -> nn.Module:
    """Turn off gradients and dropout. Raises BaseModelError if the model mixes the rows of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise BaseModelError(
                f"base={directory}: {name} is a {type(module).__name__}, which mixes the rows of a batch, so trials "
                "could not share it. Use a base with layer or RMS normalisation."
            )
    model.requires_grad_(False).eval()
    if activation_checkpointing:
        checkpoint_activations(model, directory)
    return model


def checkpoint_activations(model: nn.Module, directory: Path) -> None:
    """Recompute each layer in backward. Non-reentrant: the reentrant kind loses the adapters' gradients."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise BaseModelError(
            f"train.activation_checkpointing=true: {type(model).__name__} of {directory} has no layers that support "
            "it. Set it to false."
        )
    model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": False}
    )
    for layer in layers:
        layer.training = True  # transformers checkpoints training layers only; their parts stay in evaluation mode


def _turn_dropout_off(config: Any) -> None:
    """The base's own dropout would differ from run to run; some layers read it beside the evaluation mode."""
    for name, value in vars(config).items():
        if isinstance(value, float) and ("dropout" in name or name.endswith(("pdrop", "drop"))):
            setattr(config, name, 0.0)


def _refuse_routing(config: Any, directory: Path) -> None:
    if getattr(config, "router_aux_loss_coef", 0.0) or getattr(config, "output_router_logits", False):
        raise BaseModelError(
            f"base={directory}: a mixture of experts with an auxiliary loss over the whole batch, so trials in one "
            "batch would change each other. Use a dense base, or one with router_aux_loss_coef 0 in its config.json."
        )


def zero3_settings(dtype: torch.dtype, group: Group) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # unused without an optimizer, but asked for
        "gradient_accumulation_steps": 1,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": group.device.type == "cuda",
            "stage3_param_persistence_threshold": 0,  # or small parameters would stay whole on every rank
            "stage3_prefetch_bucket_size": PREFETCH_BUCKET,
            "stage3_max_live_parameters": MAX_LIVE_PARAMETERS,
            "stage3_max_reuse_distance": REUSE_DISTANCE,
        },
    }


def _deepspeed(group: Group) -> Any:
    """DeepSpeed, quiet and with its communication started: zero.Init takes the world size as 1 before that."""
    if group.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise it warns that it had to find that out
    import deepspeed

    # DeepSpeed 0.19 calls torch's functions by names that torch 2.13 wants to change.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)  # it prints its whole configuration at INFO
    if group.device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiles for two minutes, same results
    deepspeed.init_distributed("nccl" if group.device.type == "cuda" else "gloo", auto_mpi_discovery=False)
    return deepspeed
