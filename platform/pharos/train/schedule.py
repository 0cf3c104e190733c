"""The learning rate of an optimizer step, as a pure function of the trial's own step and horizon.

Equal to transformers' schedules of the same names. No torch here.
"""

from __future__ import annotations

from math import ceil, cos, pi, sqrt

from pharos.plan.hyperparameters import Hyperparameters

POLYNOMIAL_END = 1e-7
"""Learning rate at the end of the polynomial schedule, as in transformers."""
INVERSE_SQRT_TIMESCALE = 10_000
"""Steps; of inverse_sqrt without warmup, as in transformers."""


def learning_rate_at(step: int, *, hyperparameters: Hyperparameters, num_steps: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0, of a trial whose full budget is `num_steps`.

    Warmup takes ceil(warmup_ratio x num_steps) steps and starts at zero; `constant` ignores it, as in transformers.
    """
    peak, name = hyperparameters.learning_rate, hyperparameters.lr_scheduler_type
    if name == "constant":
        return peak
    warmup = ceil(hyperparameters.warmup_ratio * num_steps)
    if step < warmup:
        return peak * (step / warmup)
    if name == "constant_with_warmup":
        return peak
    if name == "inverse_sqrt":
        timescale = warmup or INVERSE_SQRT_TIMESCALE
        return peak / sqrt((step - warmup + timescale) / timescale)
    progress = min(1.0, (step - warmup) / max(1, num_steps - warmup))
    if name == "linear":
        return peak * (1.0 - progress)
    if name == "cosine":
        return peak * max(0.0, 0.5 * (1.0 + cos(pi * progress)))
    if name == "polynomial":
        end = min(POLYNOMIAL_END, peak)
        return (peak - end) * (1.0 - progress) + end
    raise ValueError(f"lr_scheduler_type={name!r} is no schedule of this version")
