"""A trial in a pool is the trial that stock PEFT, torch's AdamW and transformers' schedules would train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from equality_pools import MIXED, WITH_DROPOUT, Rows, Run, settings, train
from equality_reference import Reference, train_reference
from peft import PeftModel
from torch import nn

from pharos.model.dropout import DropoutMasks, dropout_masks, module_keys, row_keys
from pharos.plan.trial import TrialPlan


def differences(runs: dict[int, Run], references: Sequence[Reference]) -> dict[int, float]:
    """The largest difference of each trial: losses and gradient norms of all steps, and the trained tensors."""
    found = {}
    for reference in references:
        run = runs[reference.number]
        assert set(run.adapter) == set(reference.tensors)
        found[reference.number] = max(
            float(np.abs(np.array(run.losses) - reference.losses).max()),
            float(np.abs(np.array(run.norms) - reference.norms).max()),
            *(float((run.adapter[name] - tensor).abs().max()) for name, tensor in reference.tensors.items()),
        )
    return found


def test_fused_trials_equal_stock_peft_in_double_precision(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    runs = train(phi_fp64, rows, MIXED, settings(tmp_path))
    found = differences(runs, [train_reference(phi_fp64, rows["train"], plan) for plan in MIXED])
    assert max(found.values()) < 1e-12, found


def test_fused_trials_equal_stock_peft_in_single_precision(llama_fp32: nn.Module, rows: Rows, tmp_path: Path) -> None:
    runs = train(llama_fp32, rows, MIXED, settings(tmp_path))
    for plan in MIXED:
        reference = train_reference(llama_fp32, rows["train"], plan)
        assert np.abs(np.array(runs[plan.number].losses) - reference.losses).max() < 1e-5, plan


def test_gradients_go_through_the_same_dropout_masks(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    runs = train(phi_fp64, rows, WITH_DROPOUT, settings(tmp_path))
    references = [
        train_reference(phi_fp64, rows["train"], plan, before_step=lambda *args, plan=plan: set_masks(plan, *args))
        for plan in WITH_DROPOUT
    ]
    found = differences(runs, references)
    assert max(found.values()) < 1e-12, found


def test_reports_say_what_a_person_expects_of_a_step(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    plan = MIXED[2]
    run = train(phi_fp64, rows, {0: plan}, settings(tmp_path))[2]
    reference = train_reference(phi_fp64, rows["train"], plan)
    assert [step.step for step in run.steps] == list(range(1, plan.num_steps + 1))
    assert [step.learning_rate for step in run.steps] == reference.learning_rates
    assert [step.num_tokens for step in run.steps] == reference.token_counts
    assert run.steps[-1].epoch == plan.num_steps * 5 / len(rows["train"])
    assert run.last is not None
    assert (run.last.step, run.last.clocks, run.last.done) == (plan.num_steps, plan.num_clocks, True)


class Masked(nn.Module):
    """In place of an adapter's dropout layer: the masks of one step for one module."""

    def __init__(self, masks: DropoutMasks, module: int) -> None:
        super().__init__()
        self._masks, self._module = masks, module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._masks.drop(x, self._module)


def set_masks(plan: TrialPlan, peft_model: PeftModel, step: int, tokens: torch.Tensor) -> None:
    """Give every adapter of a stock PEFT model the masks that the trial has in this step."""
    adapted = peft_model.base_model.model
    names = [name for name, module in adapted.named_modules() if hasattr(module, "lora_dropout")]
    chosen = plan.hyperparameters
    masks = dropout_masks(
        row_keys(seed=chosen.seed, step=step, rows=np.arange(len(tokens))),
        module_keys(names),
        [chosen.lora_dropout] * len(tokens),
        device=tokens.device,
    )
    for index, name in enumerate(names):
        adapted.get_submodule(name).lora_dropout["default"] = Masked(masks, index)
