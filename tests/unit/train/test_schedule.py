"""Learning rates equal those of transformers' get_scheduler, step by step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from tests.support.plans import HYPERPARAMETERS
from transformers import get_scheduler

from pharos.spec.model import SchedulerType
from pharos.train.schedule import learning_rate_at


@pytest.mark.parametrize("name", get_args(SchedulerType))
@pytest.mark.parametrize(("warmup_ratio", "num_steps"), [(0.0, 10), (0.03, 50), (0.21, 37), (0.0, 1), (0.9, 3)])
def test_every_schedule_equals_that_of_transformers(name: str, warmup_ratio: float, num_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=HYPERPARAMETERS.learning_rate)
    warmup_steps = math.ceil(warmup_ratio * num_steps)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=num_steps)
    expected = []
    for _ in range(num_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < num_steps:  # the rate after the last step is used by nobody, and polynomial divides by zero
            scheduler.step()
    chosen = replace(HYPERPARAMETERS, lr_scheduler_type=name, warmup_ratio=warmup_ratio)
    rates = [learning_rate_at(step, hyperparameters=chosen, num_steps=num_steps) for step in range(num_steps)]
    assert rates == pytest.approx(expected, rel=1e-12, abs=0.0)


def test_a_polynomial_schedule_never_rises_above_a_tiny_peak() -> None:
    chosen = replace(HYPERPARAMETERS, lr_scheduler_type="polynomial", learning_rate=1e-8)
    assert learning_rate_at(9, hyperparameters=chosen, num_steps=10) == pytest.approx(1e-8)
