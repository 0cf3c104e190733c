"""One seat's optimizer step moves that seat alone, clips it alone, and never moves one that has diverged."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.support.plans import HYPERPARAMETERS

from pharos.model.adapter_bank import AdapterBank
from pharos.train.optimizer import SeatedAdamW

CHOSEN = replace(
    HYPERPARAMETERS,
    r=2,
    lora_alpha=4,
    learning_rate=1e-2,
    adam_beta2=0.99,
    weight_decay=0.1,
    lr_scheduler_type="constant",
    batch_size=1,
)


@pytest.fixture
def bank() -> AdapterBank:
    bank = AdapterBank({"up": (6, 10)}, num_seats=3, r_max=4)
    bank.values_KP.copy_(torch.randn(bank.values_KP.shape, generator=torch.Generator().manual_seed(0)))
    return bank


def give_gradient(bank: AdapterBank, seed: int) -> None:
    bank.grads_KP.copy_(torch.randn(bank.grads_KP.shape, generator=torch.Generator().manual_seed(seed)))


def step(optimizer: SeatedAdamW, seat: int, loss: float = 1.0) -> float:
    return optimizer.step(seat, loss=torch.tensor(loss), hyperparameters=CHOSEN, learning_rate=1e-2).item()


def all_of(bank: AdapterBank, optimizer: SeatedAdamW) -> list[torch.Tensor]:
    return [bank.values_KP, optimizer.exp_avg_KP, optimizer.exp_avg_sq_KP, optimizer.steps_K]


def test_a_step_moves_its_seat_alone_and_zeroes_its_gradient(bank: AdapterBank) -> None:
    optimizer = SeatedAdamW(bank)
    give_gradient(bank, 1)
    before, gradients = [tensor.clone() for tensor in all_of(bank, optimizer)], bank.grads_KP.clone()
    assert step(optimizer, 1) == pytest.approx(gradients[1].norm().item())
    for tensor, old in zip(all_of(bank, optimizer), before, strict=True):
        assert torch.equal(tensor[[0, 2]], old[[0, 2]])
        assert not torch.equal(tensor[1], old[1])
    assert torch.equal(bank.grads_KP[[0, 2]], gradients[[0, 2]])
    assert bank.grads_KP[1].count_nonzero() == 0


@pytest.mark.parametrize(("loss", "poison"), [(math.nan, 0.0), (math.inf, 0.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_diverged_seat_stays_as_it_was_until_it_is_reset(bank: AdapterBank, loss: float, poison: float) -> None:
    optimizer = SeatedAdamW(bank)
    give_gradient(bank, 1)
    step(optimizer, 1)
    before = [tensor.clone() for tensor in all_of(bank, optimizer)]
    give_gradient(bank, 2)
    bank.grads_KP[1, 3] += poison
    step(optimizer, 1, loss)
    give_gradient(bank, 3)
    step(optimizer, 1)  # finite again: too late
    for tensor, old in zip(all_of(bank, optimizer), before, strict=True):
        assert torch.equal(tensor, old)
    assert optimizer.diverged_K.tolist() == [0.0, 1.0, 0.0]

    optimizer.reset(1)
    give_gradient(bank, 4)
    step(optimizer, 1)
    assert optimizer.diverged_K.tolist() == [0.0, 0.0, 0.0]
    assert optimizer.steps_K.tolist() == [0.0, 1.0, 0.0]
    assert not torch.equal(bank.values_KP[1], before[0][1])
