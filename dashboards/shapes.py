"""What a dashboard is made of, as values: rows of panels, panels of queries. `build.py` makes Grafana's JSON of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "lines", "areas", "timeline"]
Needs = Literal["", "a GPU", "a price", "a peak"]

SMALL, THIRD, HALF, WHOLE = 4, 8, 12, 24
"""Widths in Grafana's grid of 24 columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """PromQL, with Grafana's variables in it. legend: a series' name, `{{label}}` replaced by the label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """unit: as Grafana names it. needs: without what it stays empty. limits: colours from a value on, the first from 0.

    areas: lines that are stacked. timeline: a coloured bar for each series.
    """

    title: str
    says: str
    kind: Kind
    queries: tuple[Query, ...]
    width: int
    unit: str = "short"
    decimals: int | None = None
    maximum: float | None = None
    limits: tuple[tuple[float, str], ...] = ()
    needs: Needs = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """of_pools: whether a pool can be chosen, beside the sweep."""

    name: str
    title: str
    says: str
    rows: tuple[Row, ...]
    of_pools: bool = False

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)
