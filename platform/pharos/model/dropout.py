"""Dropout whose masks depend on what a row is, not on where it is computed.

A mask bit is a hash of (trial seed, optimizer step, row of the step's batch, module, token, feature). So a trial drops
the same elements in any seat, beside any neighbours, on any number of ranks, at any padding, and again when activation
checkpointing recomputes. No generator is kept, and no mask is stored beyond its use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

# Two rounds of multiply and xor-shift with Chris Wellons' constants (lowbias32). The last xor-shift is left out: a
# comparison reads the high bits, which it does not change. torch has no unsigned arithmetic, hence the signed spelling.
_FIRST_FACTOR = 0x7FEB352D
_SECOND_FACTOR = 0x846CA68B - (1 << 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutMasks:
    """The masks of one clock: R rows through M modules.

    factors_MR (odd), offsets_MR: int32 keys of a row in a module. thresholds_R: int32; a hash below it drops the
    element. scales_R: 1 / (1 - p) of each row.
    """

    factors_MR: torch.Tensor
    offsets_MR: torch.Tensor
    thresholds_R: torch.Tensor
    scales_R: torch.Tensor

    def drop(self, x_RTD: torch.Tensor, module: int) -> torch.Tensor:
        """The activations entering a module's adapter, each element zero with its row's p or scaled by 1 / (1 - p)."""
        keep_RTD = self._hash(module, x_RTD.shape) >= self.thresholds_R[:, None, None]
        scaled_RTD = x_RTD * self.scales_R.to(x_RTD.dtype)[:, None, None]
        return torch.where(keep_RTD, scaled_RTD, torch.zeros((), dtype=x_RTD.dtype, device=x_RTD.device))

    def _hash(self, module: int, shape: torch.Size) -> torch.Tensor:
        """int32 hash of every element; an element's index, token x features + feature, does not depend on padding."""
        rows, tokens, features = shape
        index = torch.arange(tokens * features, dtype=torch.int32, device=self.factors_MR.device)
        hashed = index * self.factors_MR[module, :, None]
        hashed += self.offsets_MR[module, :, None]
        hashed ^= (hashed >> 16) & 0xFFFF  # the mask turns the arithmetic shift into a logical one
        hashed *= _FIRST_FACTOR
        hashed ^= (hashed >> 15) & 0x1FFFF
        hashed *= _SECOND_FACTOR
        return hashed.view(rows, tokens, features)


def row_keys(*, seed: int, step: int, rows: np.ndarray) -> np.ndarray:
    """uint64 key of each row: the trial's seed, its optimizer step, and the row's index in that step's batch."""
    stream = _mix(_mix(np.array([seed], dtype=np.uint64)) + np.uint64(step))
    return _mix(stream + rows.astype(np.uint64))


def module_keys(names: Sequence[str]) -> np.ndarray:
    """uint64 key of each module, from its full name."""
    digests = (hashlib.sha256(name.encode()).digest() for name in names)
    return np.array([int.from_bytes(digest[:8], "little") for digest in digests], dtype=np.uint64)


def dropout_masks(
    rows_R: np.ndarray, modules_M: np.ndarray, probabilities_R: Sequence[float] | np.ndarray, *, device: torch.device
) -> DropoutMasks:
    """The masks of a clock's rows. Keys are uint64; probabilities lie in [0, 1), one for each row."""
    keys_MR = _mix(modules_M[:, None] ^ rows_R[None, :])
    probabilities = np.asarray(probabilities_R, dtype=np.float64)
    thresholds = np.round(probabilities * 2.0**32) - 2.0**31
    return DropoutMasks(
        factors_MR=_int32(keys_MR | np.uint64(1), device),
        offsets_MR=_int32(keys_MR >> np.uint64(32), device),
        thresholds_R=torch.from_numpy(thresholds.astype(np.int32)).to(device, non_blocking=True),
        scales_R=torch.from_numpy(1.0 / (1.0 - probabilities)).to(device, non_blocking=True),
    )


def _int32(keys: np.ndarray, device: torch.device) -> torch.Tensor:
    """The low 32 bits."""
    low = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
    return torch.from_numpy(np.ascontiguousarray(low)).to(device, non_blocking=True)


def _mix(keys: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014); arithmetic wraps at 64 bits."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
