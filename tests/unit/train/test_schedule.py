"""Learning rates equal those of transformers' get_scheduler, step by step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from transformers import get_scheduler

from pharos.plan.hyperparameters import Hyperparameters
from pharos.spec.model import SchedulerType
from pharos.train.schedule import learning_rate_at

CHOSEN = Hyperparameters(
    r=4,
    lora_alpha=8,
    lora_dropout=0.0,
    use_rslora=False,
    learning_rate=3e-4,
    adam_beta1=0.9,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    weight_decay=0.0,
    max_grad_norm=1.0,
    lr_scheduler_type="linear",
    warmup_ratio=0.0,
    num_train_epochs=1,
    max_steps=None,
    batch_size=8,
    seed=0,
    data_seed=0,
)


@pytest.mark.parametrize("name", get_args(SchedulerType))
@pytest.mark.parametrize(("warmup_ratio", "num_steps"), [(0.0, 10), (0.03, 50), (0.21, 37), (0.0, 1), (0.9, 3)])
def test_every_schedule_equals_that_of_transformers(name: str, warmup_ratio: float, num_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=CHOSEN.learning_rate)
    warmup_steps = math.ceil(warmup_ratio * num_steps)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=num_steps)
    expected = []
    for _ in range(num_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < num_steps:  # the rate after the last step is used by nobody, and polynomial divides by zero
            scheduler.step()
    chosen = replace(CHOSEN, lr_scheduler_type=name, warmup_ratio=warmup_ratio)
    rates = [learning_rate_at(step, hyperparameters=chosen, num_steps=num_steps) for step in range(num_steps)]
    assert rates == pytest.approx(expected, rel=1e-12, abs=0.0)


def test_a_polynomial_schedule_never_rises_above_a_tiny_peak() -> None:
    chosen = replace(CHOSEN, lr_scheduler_type="polynomial", learning_rate=1e-8)
    assert learning_rate_at(9, hyperparameters=chosen, num_steps=10) == pytest.approx(1e-8)
