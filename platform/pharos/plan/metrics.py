"""The metrics that may rank trials: which way each is better, and which need generated answers. Pure."""

from __future__ import annotations

from math import inf, isnan

from pharos.spec.model import GenerationSpec, SweepSpec

Place = tuple[float, float]
"""What to rank a score by, lowest first."""
EVAL_LOSS = "eval_loss"
GENERATED = ("exact_match", "bleu_4", "rouge_1", "rouge_2", "rouge_l")
"""Of generated answers against their references, from 0 to 1: higher is better. Every other metric is a loss."""


def ranking_metric(spec: SweepSpec) -> str:
    """What ranks the trials of a sweep; a single fine-tune keeps its best eval_loss."""
    return spec.search.metric if spec.search else EVAL_LOSS


def asked_answers(spec: SweepSpec) -> GenerationSpec | None:
    """The answers that rank the trials, none where a loss does."""
    return spec.search.generation if spec.search and spec.search.metric in GENERATED else None


def is_higher_better(metric: str) -> bool:
    return metric in GENERATED


def cost(metric: str, score: float) -> float:
    """The score turned so that lower is better, as rankings and the halving want it."""
    return -score if is_higher_better(metric) else score


def place(metric: str, score: float, eval_loss: float | None) -> Place:
    """What to rank a score by, lowest first; NaN comes last.

    Of equal shares the lower loss is better: early on no answer is right yet, and only the loss tells trials apart.
    """
    known = [inf if value is None or isnan(value) else value for value in (cost(metric, score), eval_loss)]
    return known[0], known[1] if metric in GENERATED else 0.0
