"""python dashboards/look.py: the dashboards as one HTML page, drawn from a Prometheus, for who has no Grafana at hand.

Asks the same queries as Grafana would, over the same panels, for one stretch of time.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from build import COLORS, DASHBOARDS
from shapes import Dashboard, Panel, Query

NUM_POINTS = 240
VARIABLES = {"$sweep": ".*", "$pool": ".*", "$window": "1m"}
PALETTE = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300")
NAMED = {"light-green": "#96d98d", "green": "#56a64b", "orange": "#ff780a", "red": "#e02f44", "blue": "#5794f2"}
NAMED |= {"gray": "#8e8e8e", "yellow": "#fade2a"}
SCALES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
UNITS = {"bytes": "B", "Bps": "B/s", "flops": "FLOP/s", "s": " s"}
STYLE = """
body { background: #111217; color: #d8d9da; font: 14px Inter, system-ui, sans-serif; margin: 16px; }
h1 { font-size: 20px; font-weight: 500; margin: 12px 4px 2px; } h2 { font-size: 15px; margin: 10px 4px 4px; }
p { margin: 0 4px; color: #9fa7b3; }
.row { display: grid; grid-template-columns: repeat(24, 1fr); gap: 8px; }
.panel { background: #181b1f; border: 1px solid #25282d; border-radius: 3px; padding: 6px 8px; overflow: hidden; }
.title { font-weight: 500; } .number { font-size: 30px; text-align: center; padding: 12px 0; white-space: nowrap; }
.none { color: #6e7680; text-align: center; padding: 12px 0; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: its labels, and its finite values (seconds since the epoch, value)."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]

    def named(self, legend: str) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: self.labels.get(found[1], ""), legend).strip()


Ask = Callable[[str], list[Series]]
"""The series of a query."""


def main() -> None:
    arguments = _arguments()
    ask = prometheus(arguments.prometheus, start_s=time.time() - 60 * arguments.minutes, end_s=time.time())
    chosen = [board for board in DASHBOARDS if arguments.dashboard in (None, board.name)]
    arguments.output.write_text(page(chosen, ask), encoding="utf-8")
    print(f"written: {arguments.output}")


def prometheus(url: str, *, start_s: float, end_s: float) -> Ask:
    """Asks a Prometheus over a stretch of time. Ends the program where none answers; ValueError for a wrong query."""

    def ask(expr: str) -> list[Series]:
        step_s = max(1.0, (end_s - start_s) / NUM_POINTS)
        asked = urllib.parse.urlencode({"query": concrete(expr), "start": start_s, "end": end_s, "step": step_s})
        try:
            with urllib.request.urlopen(f"{url}/api/v1/query_range?{asked}") as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{expr}: {json.load(error).get('error')}") from error
        except urllib.error.URLError as error:
            raise SystemExit(
                f"--prometheus={url} does not answer ({error.reason}). Start it as dashboards/README.md says, or name "
                "where it listens."
            ) from error
        series = [
            Series(labels=found["metric"], points=tuple((at, float(value)) for at, value in found["values"]))
            for found in body["data"]["result"]
        ]
        return [each for each in series if any(math.isfinite(value) for _, value in each.points)]

    return ask


def concrete(expr: str) -> str:
    """A query with Grafana's variables replaced: all sweeps, all pools, rates over a minute."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def page(boards: Sequence[Dashboard], ask: Ask) -> str:
    """The whole page; it draws itself without a network."""
    parts = [f"<!doctype html><meta charset=utf-8><title>Pharos</title><style>{STYLE}</style>"]
    is_first = True
    for board in boards:
        parts.append(f"<h1>{html.escape(board.title)}</h1><p>{html.escape(board.says)}</p>")
        for row in board.rows:
            parts.append(f"<h2>{html.escape(row.title)}</h2><div class=row>")
            for panel in row.panels:
                inner, is_figure = _drawn(panel, ask, with_library=is_first)
                is_first = is_first and not is_figure
                title = (
                    f"<div class=title title='{html.escape(panel.says, quote=True)}'>{html.escape(panel.title)}</div>"
                )
                parts.append(f"<div class=panel style='grid-column: span {panel.width}'>{title}{inner}</div>")
            parts.append("</div>")
    return "\n".join(parts)


def _drawn(panel: Panel, ask: Ask, *, with_library: bool) -> tuple[str, bool]:
    found = [(query, series) for query in panel.queries for series in ask(query.expr)]
    if not found:
        return f"<div class=none>no data{f': needs {panel.needs}' if panel.needs else ''}</div>", False
    if panel.kind == "number":
        latest = max((series for _, series in found), key=lambda series: series.points[-1][0])
        value = next(value for _, value in reversed(latest.points) if math.isfinite(value))
        return f"<div class=number>{html.escape(shown(value, panel))}</div>", False
    figure = _timeline(found) if panel.kind == "timeline" else _chart(panel, found)
    percent = panel.unit in ("percent", "percentunit")
    figure.update_layout(
        template="plotly_dark",
        height=240,
        margin={"l": 48, "r": 8, "t": 8, "b": 24},
        paper_bgcolor="#181b1f",
        plot_bgcolor="#181b1f",
        font={"size": 11},
        showlegend=panel.kind != "timeline",
        legend={"orientation": "h", "y": -0.1},
        xaxis={"tickformat": "%H:%M:%S"},
        yaxis={
            "tickformat": "~%" if panel.unit == "percentunit" else "~s",
            "ticksuffix": "%" * (panel.unit == "percent"),
        },
    )
    if panel.kind != "timeline":
        figure.update_yaxes(rangemode="tozero" if not percent else "nonnegative")
    return figure.to_html(full_html=False, include_plotlyjs=with_library, config={"displayModeBar": False}), True


def _chart(panel: Panel, found: Sequence[tuple[Query, Series]]) -> go.Figure:
    figure = go.Figure()
    for place, (query, series) in enumerate(found):
        name = series.named(query.legend)
        color = NAMED[COLORS[name]] if name in COLORS else PALETTE[place % len(PALETTE)]
        figure.add_scatter(
            x=[_moment(at) for at, _ in series.points],
            y=[value if math.isfinite(value) else None for _, value in series.points],
            name=name,
            mode="lines",
            line={"width": 1.2, "color": color},
            stackgroup="all" if panel.kind == "areas" else None,
        )
    return figure


def _timeline(found: Sequence[tuple[Query, Series]]) -> go.Figure:
    """A row of green and grey for each series."""
    moments = sorted({at for _, series in found for at, _ in series.points})
    rows = [dict(series.points) for _, series in found]
    return go.Figure(
        go.Heatmap(
            x=[_moment(at) for at in moments],
            y=[series.named(query.legend) for query, series in found],
            z=[[row.get(at) for at in moments] for row in rows],
            colorscale=[[0, "#3a3f47"], [1, "#56a64b"]],
            zmin=0,
            zmax=1,
            showscale=False,
            ygap=2,
        )
    )


def shown(value: float, panel: Panel) -> str:
    """A number with its unit, as Grafana would write it."""
    if panel.unit in ("percent", "percentunit"):
        return f"{value * (100 if panel.unit == 'percentunit' else 1):.3g}%"
    decimals = panel.decimals
    for size, letter in SCALES:
        if value >= size and panel.unit != "s":
            return f"{value / size:.3g}{letter}{UNITS.get(panel.unit, '')}"
    return (f"{value:.{decimals}f}" if decimals is not None else f"{value:.4g}") + UNITS.get(panel.unit, "")


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="where it listens")
    parser.add_argument("--minutes", type=float, default=15, help="how far back")
    parser.add_argument("--dashboard", choices=[board.name for board in DASHBOARDS], help="one of them (default: all)")
    parser.add_argument("--output", type=Path, default=Path("dashboards.html"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
