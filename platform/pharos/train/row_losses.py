"""The loss of each row by itself, and how many of its tokens are the model's first choice: what models are compared by.

One whole model in one process, without gradients; what a pool evaluates is in `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from pharos.data.store import TokenRows
from pharos.train.batches import fuse, target_counts
from pharos.train.loss import logits_at, sums_by_seat, token_losses

FORWARD_TOKENS = 4096
"""Positions of one pass, pads included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLosses:
    """Of each of R rows, in their order. loss_sums: float64 (R,), nats over the row's trained tokens.

    num_tokens: int64 (R,), trained tokens that have a token before them. num_right: int64 (R,), those of them that the
    model finds the most likely.
    """

    loss_sums: np.ndarray
    num_tokens: np.ndarray
    num_right: np.ndarray

    @property
    def loss(self) -> float:
        """Mean over all trained tokens of all rows, as a sweep's eval_loss and test_loss are."""
        return float(self.loss_sums.sum() / max(1, self.num_tokens.sum()))

    @property
    def accuracy(self) -> float:
        """The share of trained tokens that are the most likely ones, given the true tokens before them."""
        return float(self.num_right.sum() / max(1, self.num_tokens.sum()))


@torch.no_grad()
def row_losses(
    model: PreTrainedModel,
    rows: TokenRows,
    *,
    batch_tokens: int = FORWARD_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> RowLosses:
    """The losses of all rows. Rows of similar length share a pass of at most `batch_tokens` positions, or of one row.

    progress: told (rows done, rows in all) after each pass.
    """
    loss_sums, num_right = np.zeros(len(rows), dtype=np.float64), np.zeros(len(rows), dtype=np.int64)
    num_done = 0
    for indices in _passes(rows.lengths, batch_tokens):
        batch = fuse(rows, [np.array([index]) for index in indices], model.device)  # each row as a seat of its own
        logits_NV = logits_at(model, batch.tokens_RT, batch.positions_N, batch.own_positions_RT)
        losses_N = token_losses(logits_NV, batch.targets_N).double()
        right_N = logits_NV.argmax(dim=-1) == batch.targets_N
        for out, values_N in ((loss_sums, losses_N), (num_right, right_N)):
            out[indices] = sums_by_seat(values_N.to(torch.float64), batch.seats_N, len(indices)).cpu().numpy()
        num_done += len(indices)
        if progress:
            progress(num_done, len(rows))
    return RowLosses(loss_sums=loss_sums, num_tokens=target_counts(rows), num_right=num_right)


def _passes(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Row indices of each pass, the longest rows first."""
    longest_first = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(longest_first):
        num_rows = max(1, batch_tokens // max(1, int(lengths[longest_first[start]])))
        yield longest_first[start : start + num_rows]
        start += num_rows
