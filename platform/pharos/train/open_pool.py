"""What a worker of a pool holds: the frozen base, the bank of its seats, the prepared rows.

Opened once, used for every trial that comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import torch
from torch import nn

from pharos.data.prepare import TokenRows, open_split
from pharos.errors import BaseModelError
from pharos.model.adapter_bank import AdapterBank
from pharos.model.targets import target_modules
from pharos.plan.exchange import Split
from pharos.plan.pool import PoolSettings
from pharos.train.frozen_base import FrozenBase, load_base
from pharos.train.group import Group

PROBE_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """data: the rows of each split. linear_modules: names of all Linear modules of the base."""

    base: FrozenBase
    bank: AdapterBank
    data: dict[Split, TokenRows]
    linear_modules: tuple[str, ...]


def open_pool(settings: PoolSettings, group: Group) -> Pool:
    """Load the base, attach an empty bank, map the rows. A collective: every rank of the pool calls it.

    Raises BaseModelError if the base cannot be shared by trials, or if the targets choose nothing.
    """
    base = load_base(
        Path(settings.base_dir),
        dtype=torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32,
        sharding=settings.sharding,
        activation_checkpointing=settings.activation_checkpointing,
        trust_remote_code=settings.trust_remote_code,
        group=group,
    )
    data: dict[Split, TokenRows] = {
        "train": open_split(Path(settings.data_dir), "train"),
        "eval": open_split(Path(settings.data_dir), "eval"),
        "test": open_split(Path(settings.data_dir), "test"),
    }
    return make_pool(settings, base=base, data=data, device=group.device)


@torch.no_grad()
def refuse_leaks_between_rows(base: FrozenBase, name: str, device: torch.device) -> None:
    """Raise BaseModelError unless rows that are packed into one sequence are blind to each other in this model.

    The proof is exact: with other tokens in the first row, every logit of the second must stay the same to the bit.
    A collective under ZeRO-3.
    """
    reason = "takes no position_ids"
    if "position_ids" in signature(base.module.forward).parameters:
        row = torch.arange(PROBE_TOKENS, device=device)
        own_positions = torch.cat([row, row])[None]
        logits = [
            base.module(
                input_ids=torch.cat([first, row + 1])[None], position_ids=own_positions, use_cache=False
            ).logits[0, PROBE_TOKENS:]
            for first in (row + 1, row.flip(0) + 2)
        ]
        base.release()
        reason = "" if torch.equal(*logits) else "lets a token see other rows of its sequence"
    if reason:
        raise BaseModelError(
            f"base={name}: {type(base.module).__name__} {reason}, so rows cannot share one. Set data.packing to false."
        )


def make_pool(
    settings: PoolSettings,
    *,
    base: FrozenBase,
    data: dict[Split, TokenRows],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Pool:
    """A pool around a base that is loaded already. dtype: of the adapters and their moments."""
    if base.module.get_output_embeddings() is None:
        raise BaseModelError(
            f"base={settings.base_dir}: {type(base.module).__name__} has no output layer to train through."
        )
    bank = AdapterBank(
        target_modules(base.module, settings.target_modules),
        num_seats=settings.seats_per_worker,
        r_max=settings.r_max,
        dtype=dtype,
        device=device,
    )
    bank.attach(base.module)
    if data["train"].positions is not None:
        refuse_leaks_between_rows(base, settings.base_dir, device)
    linear_modules = tuple(name for name, module in base.module.named_modules() if isinstance(module, nn.Linear))
    return Pool(base=base, bank=bank, data=data, linear_modules=linear_modules)
