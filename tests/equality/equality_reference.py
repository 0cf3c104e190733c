"""One trial as everybody else would train it: stock PEFT, torch.optim.AdamW, clip_grad_norm_, transformers' schedules.

It shares with the code under test the order of the rows and the first draw of A, nothing else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import get_scheduler

from pharos.data.order import row_order
from pharos.data.prepare import TokenRows
from pharos.model.adapter_bank import fresh_adapter
from pharos.model.targets import target_modules
from pharos.plan.trial import TrialPlan


@dataclass(slots=True, kw_only=True)
class Reference:
    """What stock tools made of a trial, step by step, and the trained tensors by module name and A or B."""

    number: int
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    token_counts: list[int] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


def stock_peft(model: nn.Module, plan: TrialPlan) -> PeftModel:
    """A copy of the model under stock PEFT, with the trial's first draw in it."""
    chosen = plan.hyperparameters
    config = LoraConfig(
        r=chosen.r,
        lora_alpha=chosen.lora_alpha,
        use_rslora=chosen.use_rslora,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(copy.deepcopy(model), config, autocast_adapter_dtype=False)
    with torch.no_grad():
        for name, (a, _) in fresh_adapter(target_modules(model, "all-linear"), r=chosen.r, seed=chosen.seed).items():
            peft_model.get_submodule(f"base_model.model.{name}").lora_A["default"].weight.copy_(a)
    return peft_model.eval()


def train_reference(
    model: nn.Module,
    rows: TokenRows,
    plan: TrialPlan,
    before_step: Callable[[PeftModel, int, torch.Tensor], None] | None = None,
) -> Reference:
    """Train one trial alone. The whole batch of a step goes through at once, with an attention mask.

    before_step: called with the model, the step from 0 and the tokens (B, T).
    """
    chosen = plan.hyperparameters
    peft_model = stock_peft(model, plan)
    parameters = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=chosen.learning_rate,
        betas=(chosen.adam_beta1, chosen.adam_beta2),
        eps=chosen.adam_epsilon,
        weight_decay=chosen.weight_decay,
    )
    scheduler = get_scheduler(
        chosen.lr_scheduler_type,
        optimizer,
        num_warmup_steps=math.ceil(chosen.warmup_ratio * plan.num_steps),
        num_training_steps=plan.num_steps,
    )
    reference = Reference(number=plan.number)
    for step in range(plan.num_steps):
        indices = row_order(len(rows), chosen.data_seed, step * chosen.batch_size, chosen.batch_size)
        tokens, labels, mask = padded(rows, indices)
        if before_step is not None:
            before_step(peft_model, step, tokens)
        logits = peft_model(input_ids=tokens, attention_mask=mask).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        loss.backward()
        limit = chosen.max_grad_norm or math.inf
        reference.norms.append(nn.utils.clip_grad_norm_(parameters, limit).item())
        reference.losses.append(loss.item())
        reference.learning_rates.append(optimizer.param_groups[0]["lr"])
        reference.token_counts.append(int((labels[:, 1:] >= 0).sum()))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    reference.tensors = trained_tensors(peft_model)
    return reference


def padded(rows: TokenRows, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, labels (-100 where nothing is trained) and attention mask of rows, each (B, T)."""
    pairs = [
        tuple(torch.tensor(part.astype("int64")) for part in parts)
        for index in indices
        for parts in rows_apart(rows, int(index))
    ]
    tokens = nn.utils.rnn.pad_sequence([ids for ids, _ in pairs], batch_first=True, padding_value=3)
    labels = nn.utils.rnn.pad_sequence(
        [torch.where(trained > 0, ids, -100) for ids, trained in pairs], batch_first=True, padding_value=-100
    )
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids, _ in pairs], batch_first=True)
    return tokens, labels, mask


def rows_apart(rows: TokenRows, index: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and trained of a row; of a pack, those of each of its rows, to be trained side by side."""
    tokens, trained = rows.row(index)
    if rows.positions is None:
        return [(tokens, trained)]
    begins = np.flatnonzero(rows.positions[rows.offsets[index] : rows.offsets[index + 1]] == 0)[1:]
    return list(zip(np.split(tokens, begins), np.split(trained, begins), strict=True))


def trained_tensors(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("base_model.model.")
        .replace(".lora_A.default.weight", ".A")
        .replace(".lora_B.default.weight", ".B"): parameter.detach().clone()
        for name, parameter in peft_model.named_parameters()
        if parameter.requires_grad
    }
