"""Where in the search space the good trials lie: parallel coordinates, and what each field decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pharos.handover.report import look
from pharos.handover.report.facts import SweepFacts, is_wide
from pharos.plan import words

RANK_COLORS = ((0.0, look.PRUNED), (0.75, look.COMPLETED), (0.9, look.COMPLETED), (1.0, look.BEST))
"""From the last rank to the best. Plotly draws the lines of larger values over the others."""
AXIS_WIDTH = 56
"""Pixels that an axis needs, so that what is written beside it does not run into the next."""
ASIDE = 0.16
"""How far trials with one and the same listed value are laid out beside each other; values are 1 apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of parallel coordinates: where values stand, and what is written beside some places."""

    label: str
    values: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def parallel_coordinates(facts: SweepFacts) -> go.Figure | None:
    """One line for each scored trial, the best on top; none with fewer than two of them or without a search."""
    ranking = facts.ledger.ranking()[::-1]
    if not facts.space or len(ranking) < 2:
        return None
    axes = [
        field_axis(field, domain, [trial.plan.params.get(field) for trial in ranking])
        for field, domain in facts.space.items()
    ]
    axes.append(score_axis(facts.metric, [float(trial.score or 0.0) for trial in ranking]))
    lines = go.Parcoords(
        dimensions=[
            {
                "label": look.text(axis.label),
                "values": np.asarray(axis.values, dtype=np.float32),
                "range": _range(axis),
                "tickvals": [place for place, _ in axis.ticks],
                "ticktext": [look.text(label) for _, label in axis.ticks],
            }
            for axis in axes
        ],
        line={
            "color": np.arange(len(ranking), dtype=np.float32),
            "cmin": 0,
            "cmax": len(ranking) - 1,
            "colorscale": RANK_COLORS,
        },
        labelangle=0,
    )
    return look.figure([lines], height=420, margin={"l": 44, "r": 44, "t": 48, "b": 24})


def importance_bars(importance: Mapping[str, float]) -> go.Figure | None:
    """Each field's share, the largest on top; none where there is nothing to share."""
    if not importance:
        return None
    shares = sorted(importance.items(), key=lambda item: item[1])
    bars = go.Bar(
        x=[share for _, share in shares],
        y=[look.text(words.short_name(field)) for field, _ in shares],
        customdata=[look.text(field) for field, _ in shares],
        text=[f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" for _, share in shares],
        textposition="outside",
        cliponaxis=False,
        orientation="h",
        marker={"color": look.COMPLETED},
        hovertemplate="%{customdata}: %{x:.1%}<extra></extra>",
    )
    largest = max(importance.values())
    return look.figure(
        [bars],
        height=40 + 34 * len(shares),
        xaxis={"range": [0, largest * 1.15 or 1], "visible": False},
        yaxis={"showgrid": False},
        margin={"l": 72, "r": 24, "t": 8, "b": 8},
        bargap=0.35,
    )


def field_axis(field: str, domain: Mapping[str, Sequence[Any]], chosen: Sequence[Any]) -> Axis:
    """The axis of a searched field. A value that the domain does not hold, as the baseline's may be, gets its place."""
    [(kind, ends)] = domain.items()
    label = words.short_name(field)
    if kind in ("ordered", "choice"):
        return _axis_of_places(label, _places(kind, [*ends, *(value for value in chosen if value is not None)]), chosen)
    numbers = [float(ends[0]) if value is None else float(value) for value in chosen]
    within = [*(float(end) for end in ends), *numbers]
    if kind == "log_uniform" and min(within) > 0:
        return Axis(label=label, values=[log10(v) for v in numbers], ticks=_log_ticks(min(within), max(within)))
    if kind == "one_minus_log_uniform" and max(within) < 1:
        distances = _log_ticks(1 - max(within), 1 - min(within))
        ticks = [(-place, words.value(1 - 10**place)) for place, _ in distances]
        return Axis(label=label, values=[-log10(1 - v) for v in numbers], ticks=ticks)
    return Axis(label=label, values=numbers, ticks=_even_ticks(min(within), max(within)))


def score_axis(metric: str, scores: Sequence[float]) -> Axis:
    if is_wide(scores):
        return Axis(label=metric, values=[log10(v) for v in scores], ticks=_log_ticks(min(scores), max(scores)))
    return Axis(label=metric, values=scores, ticks=_even_ticks(min(scores), max(scores)))


def _places(kind: str, values: Sequence[Any]) -> list[Any]:
    """Every value once: an ordered domain's by size, a choice's as the user wrote them."""
    once: list[Any] = []
    for value in values:
        if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in once):
            once.append(value)
    return sorted(once) if kind == "ordered" else once


def _axis_of_places(label: str, places: Sequence[Any], chosen: Sequence[Any]) -> Axis:
    """Values at equal distances, as the user listed them."""
    return Axis(
        label=label,
        values=[
            (0.0 if value is None else float(places.index(value))) + (look.evenly(index) - 0.5) * ASIDE
            for index, value in enumerate(chosen)
        ],
        ticks=[(float(index), words.value(value)) for index, value in enumerate(places)],
    )


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """The ends, and the powers of ten between them that do not crowd an end. Places are logarithms."""
    first, last = log10(low), log10(high)
    apart = max((last - first) * 0.08, 1e-9)
    between = [float(power) for power in range(ceil(first), floor(last) + 1)]
    between = [power for power in between if power - first > apart and last - power > apart]
    return [(place, words.value(10**place)) for place in [first, *between, *([last] if last > first else [])]]


def _even_ticks(low: float, high: float) -> list[tuple[float, str]]:
    if high <= low:
        return [(low, words.value(low))]
    return [(low + (high - low) * part / 4, words.value(low + (high - low) * part / 4)) for part in range(5)]


def _range(axis: Axis) -> list[float]:
    """All ticks and values; a little room where they are one, since plotly cannot draw an axis of no length."""
    places = [*axis.values, *(place for place, _ in axis.ticks)]
    low, high = min(places), max(places)
    return [low, high] if high > low else [low - 0.5, high + 0.5]
