"""In which order a trial sees its rows, and rows as one padded batch. Pure numpy: the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pharos.data.prepare import TokenRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """tokens (B, T) int64 and trained (B, T) bool, padded on the right; lengths (B,) int64 without the padding.

    positions (B, T) int64: of each token in its own row, where rows are packed; the pads of a row count from 0 too.
    targets (B, T) int64: what is to be predicted in the place of each token, where that is not the token itself.
    """

    tokens: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray
    positions: np.ndarray | None = None
    targets: np.ndarray | None = None


def row_order(num_rows: int, data_seed: int, start: int, count: int) -> np.ndarray:
    """Places `start` up to `start + count` of an endless stream of epochs, each a permutation of the rows of its own.

    Returns row indices (count,) int64. They depend on these four numbers alone, so a trial can go on from any place.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows={num_rows}: there is nothing to order")
    pieces = [np.empty(0, dtype=np.int64)]
    while count > 0:
        epoch, place = divmod(start, num_rows)
        piece = _permutation(num_rows, data_seed, epoch)[place : place + count]
        pieces.append(piece)
        start, count = start + len(piece), count - len(piece)
    return np.concatenate(pieces)


def collate(rows: TokenRows, indices: Sequence[int] | np.ndarray, pad_id: int, length: int | None = None) -> Batch:
    """The rows of `indices`, padded on the right with `pad_id` to the longest of them, or to `length` tokens.

    Raises ValueError if a row is longer than `length`: rows are never cut here.
    """
    lengths = rows.lengths[np.asarray(indices, dtype=np.int64)]
    longest = int(lengths.max(initial=0))
    if length is not None and length < longest:
        raise ValueError(f"length={length} is less than the {longest} tokens of the longest row")
    shape = (len(lengths), longest if length is None else length)
    tokens_BT = np.full(shape, pad_id, dtype=np.int64)
    trained_BT = np.zeros(shape, dtype=bool)
    positions_BT = None if rows.positions is None else np.maximum(np.arange(shape[1]) - lengths[:, None], 0)
    targets_BT = None if rows.targets is None else np.full(shape, pad_id, dtype=np.int64)
    columns = (
        (tokens_BT, rows.tokens),
        (trained_BT, rows.trained),
        (positions_BT, rows.positions),
        (targets_BT, rows.targets),
    )
    for batch_BT, column in columns:
        if batch_BT is None or column is None:
            continue
        for b, index in enumerate(indices):
            batch_BT[b, : lengths[b]] = column[rows.offsets[index] : rows.offsets[index + 1]]
    return Batch(tokens=tokens_BT, trained=trained_BT, lengths=lengths, positions=positions_BT, targets=targets_BT)


@lru_cache(maxsize=16)
def _permutation(num_rows: int, data_seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch, int64 (num_rows,).

    Made from the raw stream of PCG64, which numpy promises never to change (NEP 19); it does not promise that of
    Generator.permutation.
    """
    stream = np.random.PCG64(np.random.SeedSequence(data_seed, spawn_key=(epoch,)))
    order = np.argsort(stream.random_raw(num_rows), kind="stable")
    order.flags.writeable = False
    return order
