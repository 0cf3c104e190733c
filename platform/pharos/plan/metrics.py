"""The metrics that may rank trials: which way each is better, and which need generated answers. Pure."""

from __future__ import annotations

from math import inf, isnan

EVAL_LOSS = "eval_loss"
GENERATED = ("exact_match", "bleu_4", "rouge_1", "rouge_2", "rouge_l")
"""Of generated answers against their references, from 0 to 1: higher is better. Every other metric is a loss."""


def is_higher_better(metric: str) -> bool:
    return metric in GENERATED


def cost(metric: str, score: float) -> float:
    """The score turned so that lower is better, as rankings and the halving want it."""
    return -score if is_higher_better(metric) else score


def place(metric: str, score: float, eval_loss: float | None) -> tuple[float, float]:
    """What to rank a score by, lowest first; NaN comes last.

    Of equal shares the lower loss is better: early on no answer is right yet, and only the loss tells trials apart.
    """
    known = [inf if value is None or isnan(value) else value for value in (cost(metric, score), eval_loss)]
    return known[0], known[1] if metric in GENERATED else 0.0
