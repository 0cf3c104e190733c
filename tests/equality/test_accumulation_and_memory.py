"""What saves memory changes no result: accumulation, recomputed activations, chunked losses."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from equality_pools import SHORT, Rows, distance, settings, train, trial
from torch import nn
from torch.nn import functional as F

from pharos.train import loss as loss_module
from pharos.train.frozen_base import checkpoint_activations
from pharos.train.loss import token_losses


def test_four_micro_batches_of_two_rows_equal_one_of_eight(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    plan = trial(0, batch_size=8, lora_dropout=0.2, num_steps=6)
    runs = {
        size: train(
            phi_fp64,
            rows,
            [trial(0, batch_size=8, lora_dropout=0.2, num_steps=6, micro_batch_size=size)],
            settings(tmp_path / str(size), seats_per_worker=1, micro_batch_size=size),
        )[0]
        for size in (2, 3, 8)
    }
    assert [run.last.clocks for run in runs.values() if run.last] == [24, 18, 6]
    assert plan.num_clocks == 24
    for size in (2, 3):
        assert distance(runs[size], runs[8]) < 1e-12, size


def test_recomputed_activations_change_nothing(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    recomputing = copy.deepcopy(phi_fp64)
    checkpoint_activations(recomputing, Path("tiny"))
    forwards = []
    recomputing.model.layers[0].mlp.register_forward_pre_hook(lambda *_: forwards.append(1))
    plain = train(phi_fp64, rows, SHORT, settings(tmp_path / "plain"))
    recomputed = train(recomputing, rows, SHORT, settings(tmp_path / "recomputed"))
    assert len(forwards) >= 2 * 12  # the longest trial has 12 clocks, and evaluations go forward once
    for number, run in plain.items():
        assert distance(run, recomputed[number]) < 1e-12


def test_a_base_in_bfloat16_trains_adapters_in_single_precision(
    llama_fp32: nn.Module, rows: Rows, tmp_path: Path
) -> None:
    plan = trial(0, num_steps=40, learning_rate=2e-2)
    runs = {
        dtype: train(
            copy.deepcopy(llama_fp32).to(dtype), rows, [plan], settings(tmp_path / str(dtype), seats_per_worker=1)
        )[0]
        for dtype in (torch.float32, torch.bfloat16)
    }
    narrow, wide = runs[torch.bfloat16], runs[torch.float32]
    assert {tensor.dtype for tensor in narrow.adapter.values()} == {torch.float32}
    assert narrow.losses[0] == pytest.approx(wide.losses[0], rel=1e-2)
    assert sum(narrow.losses[-10:]) == pytest.approx(sum(wide.losses[-10:]), rel=0.1)
    assert sum(narrow.losses[-10:]) < 0.9 * sum(narrow.losses[:10])


def test_losses_by_chunks_equal_losses_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 2 * loss_module.CHUNK_TOKENS + 5
    logits = torch.randn(count, 11, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 11, (count,), generator=generator)
    chunked, whole = (logits.clone().requires_grad_() for _ in range(2))
    losses = token_losses(chunked, targets)
    expected = F.cross_entropy(whole, targets, reduction="none")
    assert (losses - expected).abs().max() < 1e-12
    for value in (losses, expected):
        value.square().sum().backward()
    assert chunked.grad is not None
    assert whole.grad is not None
    assert (chunked.grad - whole.grad).abs().max() < 1e-12
