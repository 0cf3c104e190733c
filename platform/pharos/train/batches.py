"""Which rows a trial sees in a clock, and the rows of all live seats as one right-padded batch.

Pure functions of a trial's own place: the rows of its optimizer step s are the same wherever it is placed.
Shape letters: R rows (seat-major), T tokens, N trained positions, S seats in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pharos.data.order import collate, row_order
from pharos.data.prepare import TokenRows

PAD_ID = 0
"""Any id does: pads follow a row's tokens and are never trained on, so no real token depends on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One rank's part of one clock of one trial.

    indices: rows of the training split. places: their indices in the step's batch. rows_done: rows of the step that all
    ranks have done after this clock, 0 when it ends the step.
    """

    indices: np.ndarray
    places: np.ndarray
    rows_done: int

    @property
    def ends_step(self) -> bool:
        return self.rows_done == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedBatch:
    """Rows of S seats, the same number for each, one seat after another; missing rows are dummies without targets.

    own_positions_RT: of each token in its own row, where rows are packed and must not see each other.
    positions_N: flat (row x T + token) places whose next token is trained; targets_N: that token, or what is to be
    predicted in its place; seats_N: whose it is. num_row_tokens: positions that are no pads.
    """

    tokens_RT: torch.Tensor
    own_positions_RT: torch.Tensor | None
    positions_N: torch.Tensor
    targets_N: torch.Tensor
    seats_N: torch.Tensor
    rows_per_seat: int
    num_row_tokens: int


def next_share(
    *,
    num_rows: int,
    batch_size: int,
    data_seed: int,
    step: int,
    rows_done: int,
    micro_batch_size: int,
    num_shards: int = 1,
    shard: int = 0,
) -> Share:
    """The rows of the next clock of optimizer step `step`, of which `rows_done` rows are done, on rank `shard`.

    A step takes as few clocks as micro-batches and ranks allow, its rows spread evenly over them and over the ranks.
    What is left depends on `rows_done` alone, so a trial may go on in the middle of a step on another number of ranks.
    """
    left = batch_size - rows_done
    clocks_left = -(-left // (micro_batch_size * num_shards))
    taken = -(-left // clocks_left)
    start = rows_done + taken * shard // num_shards
    end = rows_done + taken * (shard + 1) // num_shards
    return Share(
        indices=row_order(num_rows, data_seed, step * batch_size + start, end - start),
        places=np.arange(start, end),
        rows_done=(rows_done + taken) % batch_size,
    )


def target_counts(rows: TokenRows) -> np.ndarray:
    """Trained tokens of each row, int64, that have a token before them: nothing predicts a row's first token."""
    return rows.trained_counts - rows.trained[rows.offsets[:-1]]


def step_targets(counts: np.ndarray, *, batch_size: int, data_seed: int, step: int) -> int:
    """Trained tokens of a whole optimizer step, all accumulation and all ranks included."""
    return int(counts[row_order(len(counts), data_seed, step * batch_size, batch_size)].sum())


def fuse(rows: TokenRows, indices_by_seat: Sequence[np.ndarray], device: torch.device) -> FusedBatch:
    """The given rows of each seat as one batch. Without any row, a dummy row keeps the base's collectives going."""
    seats = max(1, len(indices_by_seat))
    rows_per_seat = max(1, *(len(indices) for indices in indices_by_seat)) if indices_by_seat else 1
    batch = collate(rows, np.concatenate([np.empty(0, dtype=np.int64), *indices_by_seat]), PAD_ID)
    places = [seat * rows_per_seat + i for seat, indices in enumerate(indices_by_seat) for i in range(len(indices))]
    shape = (seats * rows_per_seat, max(1, batch.tokens.shape[1]))
    tokens_RT, trained_RT = np.full(shape, PAD_ID, dtype=np.int64), np.zeros(shape, dtype=bool)
    own_positions_RT = None if batch.positions is None else np.tile(np.arange(shape[1]), (shape[0], 1))
    if places:
        tokens_RT[places], trained_RT[places] = batch.tokens, batch.trained
        if own_positions_RT is not None:
            own_positions_RT[places] = batch.positions
    target_RT = tokens_RT
    if batch.targets is not None and places:
        target_RT = tokens_RT.copy()
        target_RT[places] = batch.targets
    row_N, token_N = np.nonzero(trained_RT[:, 1:])
    return FusedBatch(
        tokens_RT=to_device(tokens_RT, device),
        own_positions_RT=None if own_positions_RT is None else to_device(own_positions_RT, device),
        positions_N=to_device(row_N * shape[1] + token_N, device),
        targets_N=to_device(target_RT[row_N, token_N + 1], device),
        seats_N=to_device(row_N // rows_per_seat, device),
        rows_per_seat=rows_per_seat,
        num_row_tokens=int(batch.lengths.sum()),
    )


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor of an array; to a GPU through pinned memory, so that the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
