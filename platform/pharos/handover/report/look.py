"""How all figures look, and the text that goes into them. Colours that depend on light or dark are set by report.js."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's colours, which the colour-blind tell apart; each is readable on white and on near-black.
BEST = "#009e73"
BASELINE = "#e69f00"
COMPLETED = "#4a90d9"
PRUNED = "#8f96a3"
STOPPED = "#cc79a7"
BROKEN = "#d55e00"
RUNNING = "#7b61c9"
LOST = "#c9b458"
MOVED = "#8fb3a8"

OUTCOMES = (
    ("completed", ("COMPLETED",), COMPLETED),
    ("stopped at a rung", ("PRUNED",), PRUNED),
    ("stopped", ("STOPPED",), STOPPED),
    ("diverged or failed", ("DIVERGED", "FAILED"), BROKEN),
    ("still running", ("RUNNING", "WAITING"), RUNNING),
)
"""Name, states and colour of trials that are told apart by how they ended alone."""
GOLDEN = 0.6180339887498949


def figure(traces: Sequence[Any], *, height: int, x: str = "", y: str = "", **layout: Any) -> go.Figure:
    """A figure in the house's look. x, y: titles of the axes; `layout`: anything else of plotly's layout."""
    drawn = go.Figure(data=list(traces))
    drawn.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 16, "t": 28, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
        hoverlabel={"align": "left"},
        dragmode="zoom",
    )
    drawn.update_xaxes(title_text=text(x), automargin=True, zeroline=False)
    drawn.update_yaxes(title_text=text(y), automargin=True, zeroline=False)
    drawn.update_layout(**layout)
    return drawn


def evenly(index: int) -> float:
    """Numbers from 0 to 1 that lie evenly apart, however many are taken: for marks that would hide each other."""
    return index * GOLDEN % 1


def text(value: object) -> str:
    """Anything that did not come from this program, for a figure: plotly reads <b> and <a> in its texts."""
    return escape(str(value), quote=False)
