"""How numbers, times and hyperparameters are written for a person, on a terminal or on a page. Pure text, no styles."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from pharos.plan.trial import trial_name

SHORT_NAMES = {
    "lora.lora_alpha": "alpha",
    "lora.alpha_over_r": "alpha/r",
    "lora.lora_dropout": "dropout",
    "lora.use_rslora": "rslora",
    "optim.learning_rate": "lr",
    "optim.adam_beta1": "beta1",
    "optim.adam_beta2": "beta2",
    "optim.adam_epsilon": "epsilon",
    "optim.weight_decay": "decay",
    "optim.max_grad_norm": "clip",
    "optim.lr_scheduler_type": "schedule",
    "optim.warmup_ratio": "warmup",
    "train.num_train_epochs": "epochs",
    "train.max_steps": "steps",
    "train.batch_size": "batch",
}
NOTHING = "-"


def short_name(field: str) -> str:
    return SHORT_NAMES.get(field, field.rsplit(".", 1)[-1])


def params(values: Mapping[str, Any]) -> str:
    """lr 0.0012, r 16, alpha/r 2: searched values, shortest first to be cut last."""
    return ", ".join(f"{short_name(field)} {value(chosen)}" for field, chosen in values.items())


def value(number: Any) -> str:
    """A hyperparameter. Between 0.9 and 1 (betas) the distance from 1 matters, so more digits are kept."""
    if isinstance(number, bool) or not isinstance(number, float):
        return str(number)
    return f"{number:.5g}" if 0.9 < number < 1 else f"{number:.3g}"


def score(number: float | None) -> str:
    """A loss or metric with four digits behind the point; a dash where there is none."""
    return NOTHING if number is None or not isfinite(number) else f"{number:.4f}"


def metric(name: str, number: float | None) -> str:
    """A test metric; shares of exact matches as per cent."""
    if number is not None and name.endswith(("match", "accuracy")):
        return f"{number:.1%}"
    return score(number)


def chance(probability: float) -> str:
    """A probability; what few seeds can hardly know is not said with more than a digit behind 99 per cent."""
    if probability > 0.999:
        return "> 99.9%"
    return "< 0.1%" if probability < 0.001 else f"{probability:.1%}"


def short_trial(number: int) -> str:
    """As the trial's name ends: 0007, or 0007-seed2 of a repeat."""
    return trial_name("", number)[1:]


def duration(seconds: float) -> str:
    """4:02, or 1:04:02 from an hour on."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def count(number: float) -> str:
    """950, 18.2k, 1.3M, 8.03B."""
    for size, letter, digits in ((1e9, "B", 2), (1e6, "M", 1), (1e4, "k", 1)):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.{digits}f}{letter}"
    return f"{number:,.0f}"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
