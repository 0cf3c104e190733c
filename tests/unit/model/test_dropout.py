"""Dropout masks: the right share, no pattern, and the same wherever a row is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pharos.model.dropout import DropoutMasks, dropout_masks, module_keys, row_keys

CPU = torch.device("cpu")
MODULES = module_keys(["layers.0.q_proj", "layers.0.k_proj"])


def masks_of(seed: int, step: int, rows: list[int], rate: float = 0.3) -> DropoutMasks:
    keys = row_keys(seed=seed, step=step, rows=np.array(rows))
    return dropout_masks(keys, MODULES, [rate] * len(rows), device=CPU)


def kept(masks: DropoutMasks, module: int, rows: int, tokens: int = 32, features: int = 64) -> torch.Tensor:
    return masks.drop(torch.ones(rows, tokens, features), module) != 0


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_the_rate(rate: float) -> None:
    share = 1.0 - kept(masks_of(7, 3, list(range(64)), rate), 0, 64).double().mean()
    assert abs(share - rate) < 4 * (rate * (1 - rate) / (64 * 32 * 64)) ** 0.5


def test_what_is_kept_is_scaled_so_that_the_mean_stays() -> None:
    dropped = masks_of(0, 0, [0], rate=0.25).drop(torch.full((1, 32, 64), 3.0, dtype=torch.float64), 1)
    assert set(dropped.flatten().tolist()) == {0.0, 4.0}


def test_rows_without_dropout_pass_to_the_bit_beside_rows_with_it() -> None:
    keys = row_keys(seed=1, step=0, rows=np.arange(2))
    x = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    out = dropout_masks(keys, MODULES, [0.0, 0.5], device=CPU).drop(x, 0)
    assert torch.equal(out[0], x[0])
    assert not torch.equal(out[1], x[1])


def test_a_mask_depends_neither_on_neighbours_nor_on_padding() -> None:
    alone = kept(masks_of(5, 2, [3]), 1, 1, tokens=10)
    beside = kept(masks_of(5, 2, [0, 3, 1]), 1, 3, tokens=17)
    assert torch.equal(alone[0], beside[1, :10])


def test_seed_step_row_and_module_each_give_an_unrelated_mask() -> None:
    first = kept(masks_of(5, 2, [3], rate=0.5), 0, 1).double() - 0.5
    others = [
        kept(masks_of(6, 2, [3], rate=0.5), 0, 1),
        kept(masks_of(5, 3, [3], rate=0.5), 0, 1),
        kept(masks_of(5, 2, [4], rate=0.5), 0, 1),
        kept(masks_of(5, 2, [3], rate=0.5), 1, 1),
    ]
    for other in others:
        correlation = 4 * (first * (other.double() - 0.5)).mean()
        assert abs(correlation) < 4 / first.numel() ** 0.5


def test_tokens_and_features_of_one_mask_are_unrelated() -> None:
    mask = 2 * (kept(masks_of(0, 0, list(range(16)), rate=0.5), 0, 16).double() - 0.5)
    bound = 4 / (mask.numel() * 31 / 32) ** 0.5
    for shift in (1, 2, 16):
        assert abs((mask[:, shift:] * mask[:, :-shift]).mean()) < bound * 1.1
        assert abs((mask[:, :, shift:] * mask[:, :, :-shift]).mean()) < bound * 1.3


def test_masks_never_change_between_versions() -> None:
    """A checkpoint must go on with the masks that it began with; these bits were written down once."""
    bits = kept(masks_of(42, 7, [5], rate=0.5), 1, 1, tokens=2, features=16).int().flatten().tolist()
    assert "".join(map(str, bits)) == "10110110011011101011011000001000"
