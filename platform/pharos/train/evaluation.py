"""Token-mean loss of several seats over a split, all of them in one fused pass.

Every rank makes the same number of forward passes, with or without seats of its own: ZeRO-3 gathers the base in each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pharos.data.prepare import TokenRows
from pharos.model.adapter_bank import AdapterBank
from pharos.train.batches import fuse, target_counts
from pharos.train.frozen_base import FrozenBase
from pharos.train.group import Group
from pharos.train.loss import logits_at, sums_by_seat, token_losses

FORWARD_TOKENS = 4096
"""Positions that one evaluation pass may have, pads included, if a micro-batch of every seat has no more."""


@torch.no_grad()
def mean_losses(
    rows: TokenRows,
    seats: Sequence[int],
    *,
    base: FrozenBase,
    bank: AdapterBank,
    group: Group,
    micro_batch_size: int,
    split_rows: bool,
) -> list[float]:
    """Mean loss over the trained tokens of all rows, for each of this rank's seats (ascending).

    split_rows: all ranks hold the same seats, each takes a part of the rows, and sums go over the ranks; otherwise each
    rank takes all rows for its own seats. Without a seat the base's passes are made all the same.
    """
    num_shards, shard = (group.world_size, group.rank) if split_rows else (1, 0)
    longest_first = np.argsort(-rows.lengths, kind="stable")
    rows_a_pass = max(micro_batch_size, FORWARD_TOKENS // (bank.num_seats * int(rows.lengths.max())))
    own = longest_first[shard::num_shards]
    num_passes = -(-len(longest_first[::num_shards]) // rows_a_pass)
    sums_S = torch.zeros(len(seats), dtype=torch.float64, device=group.device)
    for i in range(num_passes):
        indices = own[i * rows_a_pass : (i + 1) * rows_a_pass]
        batch = fuse(rows, [indices] * len(seats), group.device)
        with bank.active(seats):
            logits_NV = logits_at(base.module, batch.tokens_RT, batch.positions_N, batch.own_positions_RT)
        if seats:
            sums_S += sums_by_seat(token_losses(logits_NV, batch.targets_N).double(), batch.seats_N, len(seats))
    base.release()
    if split_rows:
        group.all_reduce(sums_S)
    return (sums_S / max(1, int(target_counts(rows).sum()))).tolist()
