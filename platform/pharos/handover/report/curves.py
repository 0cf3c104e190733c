"""Learning curves: those of all trials by how they ended, and those of the winner against the baseline's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pharos.handover.report import look
from pharos.handover.report.facts import Curves, SweepFacts, is_wide
from pharos.plan import events as ev
from pharos.plan.ledger import TrialRecord
from pharos.plan.metrics import EVAL_LOSS

MAX_POINTS = 40_000
"""Of all curves of one group together."""
MAX_LOSSES = 400
"""Points of one training curve; beyond that, means of neighbours."""
FEW = 40
"""Curves of one group up to which none has to let others show through."""
NUM_FOR_GPU = 10_000
"""From so many points on the curves are drawn with WebGL: SVG would be slow to move about."""
OPACITY = 0.6
"""Of curves in a larger group."""


def learning_curves(facts: SweepFacts, metric: str, curves: Curves) -> go.Figure | None:
    """A metric of every trial over its training; none where nothing was evaluated."""
    if not any(curves.values()):
        return None
    others = [trial for trial in facts.others() if curves[trial.number]]
    num_points = sum(len(curves[trial.number]) for trial in others)
    scatter = go.Scattergl if num_points > NUM_FOR_GPU else go.Scatter
    traces = []
    for name, states, color in look.OUTCOMES:
        group = [trial for trial in others if trial.state in states]
        if group:
            x, y, numbers = _joined(facts, group, curves)
            traces.append(
                scatter(
                    x=x,
                    y=y,
                    customdata=numbers,
                    name=f"{name} ({len(group)})",
                    mode="lines+markers",
                    line={"color": color, "width": 1.2},
                    marker={"color": color, "size": 3},
                    opacity=OPACITY if len(group) > FEW else 1,
                    connectgaps=False,
                    hovertemplate=_hover(facts),
                )
            )
    traces += [_told_apart(facts, trial, color, name, curves) for trial, color, name in _pair(facts, curves)]
    scores = [score for points in curves.values() for _, score in points]
    return look.figure(
        traces,
        height=460,
        x=_unit(facts),
        y=metric,
        xaxis={"rangemode": "tozero"},
        yaxis={"type": "log" if is_wide(scores) else "linear"},
    )


def against_baseline(facts: SweepFacts) -> go.Figure | None:
    """Training and eval loss of the winner and the baseline; none where they are one, or one has no curve."""
    pair = _pair(facts, facts.losses)
    if len(pair) < 2:
        return None
    traces: list[Any] = []
    losses = training_losses(facts.events, {trial.number for trial, _, _ in pair})
    for trial, color, name in pair:
        steps, values = thinned(losses[trial.number])
        traces.append(
            go.Scatter(
                x=_position(facts, trial, steps),
                y=values,
                name=f"{name}: training loss",
                mode="lines",
                line={"color": color, "width": 1},
                opacity=0.45,
                hovertemplate=f"step %{{x}}: %{{y:.4f}}<extra>{name}, training</extra>",
            )
        )
    traces += [_told_apart(facts, trial, color, f"{name}: {EVAL_LOSS}", facts.losses) for trial, color, name in pair]
    return look.figure(traces, height=380, x=_unit(facts), y="loss", xaxis={"rangemode": "tozero"})


def training_losses(events: Iterable[ev.Event], numbers: set[int]) -> dict[int, list[tuple[int, float]]]:
    """(step, finite loss) of some trials, ascending. A step that was run again after a loss counts as run last."""
    by_step: dict[int, dict[int, float]] = {number: {} for number in numbers}
    for event in events:
        if isinstance(event, ev.TrialReported) and event.number in numbers:
            by_step[event.number] |= {step["step"]: step["loss"] for step in event.steps}
    return {number: sorted((s, v) for s, v in losses.items() if isfinite(v)) for number, losses in by_step.items()}


def thinned(points: Sequence[tuple[int, float]], most: int = MAX_LOSSES) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points: means over neighbours, at the last step of each."""
    if not points:
        return np.zeros(0), np.zeros(0)
    parts = np.array_split(np.asarray(points, dtype=np.float64), min(most, len(points)))
    return np.array([part[-1, 0] for part in parts]), np.array([part[:, 1].mean() for part in parts])


def _joined(
    facts: SweepFacts, trials: Sequence[TrialRecord], curves: Curves
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The curves of many trials as one line with gaps: (x, y, trial number), each one value for each point."""
    most = max(4, MAX_POINTS // len(trials))
    gap = np.array([np.nan])
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    for trial in trials:
        points = np.asarray(curves[trial.number], dtype=np.float64)
        if len(points) > most:
            points = points[np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]
        xs += [_position(facts, trial, points[:, 0]), gap]
        ys += [points[:, 1], gap]
        numbers.append(np.full(len(points) + 1, trial.number))
    return (
        np.concatenate(xs).astype(np.float32),
        np.concatenate(ys).astype(np.float32),
        np.concatenate(numbers).astype(np.int32),
    )


def _pair(facts: SweepFacts, curves: Curves) -> list[tuple[TrialRecord, str, str]]:
    """(trial, colour, name) of the baseline and the winner, as far as they are there; the winner is drawn last."""
    best, baseline = facts.best, facts.baseline
    pair = []
    if baseline is not None and baseline is not best and curves[baseline.number]:
        pair.append((baseline, look.BASELINE, "baseline"))
    if best is not None and curves[best.number]:
        pair.append((best, look.BEST, "best" if facts.is_search else facts.trial_name(best.number)))
    return pair


def _told_apart(facts: SweepFacts, trial: TrialRecord, color: str, name: str, curves: Curves) -> go.Scatter:
    """A curve of its own. The evaluation that scores the trial has a larger marker."""
    points = curves[trial.number]
    return go.Scatter(
        x=_position(facts, trial, np.array([step for step, _ in points])),
        y=[score for _, score in points],
        customdata=np.full(len(points), trial.number),
        name=name,
        mode="lines+markers",
        line={"color": color, "width": 3},
        marker={"color": color, "size": [12 if step == trial.best_step else 6 for step, _ in points]},
        hovertemplate=_hover(facts),
    )


def _hover(facts: SweepFacts) -> str:
    return f"{look.text(facts.name)}-%{{customdata:04d}}<br>{_unit(facts)} %{{x:.0f}}: %{{y:.4f}}<extra></extra>"


def _unit(facts: SweepFacts) -> str:
    """Trials of different batch sizes are compared at equal data, as rungs do, and not at equal steps."""
    return "optimizer step" if facts.has_one_step_length else "micro-batch of the trial"


def _position(facts: SweepFacts, trial: TrialRecord, steps: np.ndarray) -> np.ndarray:
    return steps if facts.has_one_step_length else steps * trial.plan.clocks_per_step
