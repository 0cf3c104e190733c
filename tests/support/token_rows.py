"""Rows of tokens in memory, for tests and benchmarks that need no file of them."""

from __future__ import annotations

import numpy as np

from pharos.data.packing import pack, positions
from pharos.data.store import TokenRows


def rows_in_memory(
    tokens: np.ndarray, trained: np.ndarray, offsets: np.ndarray, own_positions: np.ndarray | None = None
) -> TokenRows:
    """Rows end to end, row i from offsets[i] to offsets[i + 1]; what a file of them would say of each is reckoned."""
    return TokenRows(
        tokens=tokens.astype(np.int32),
        trained=trained.astype(np.uint8),
        offsets=offsets,
        lengths=np.diff(offsets),
        trained_counts=np.add.reduceat(trained, offsets[:-1], dtype=np.int64),
        positions=own_positions,
    )


def packed_rows(rows: TokenRows, max_length: int) -> TokenRows:
    """The rows in packs of at most `max_length` tokens. Nothing predicts a row's first token: it is not trained."""
    packs = pack(rows.lengths, max_length)
    pairs = [rows.row(index) for indices in packs for index in indices]
    own_positions = positions([len(tokens) for tokens, _ in pairs])
    trained = np.concatenate([part for _, part in pairs]).astype(np.uint8)
    trained[own_positions == 0] = 0
    offsets = np.cumsum([0, *(int(rows.lengths[indices].sum()) for indices in packs)])
    return rows_in_memory(np.concatenate([tokens for tokens, _ in pairs]), trained, offsets, own_positions)
