"""Queries and panels that the dashboards share. Names of Pharos' metrics come from where they are declared."""

from __future__ import annotations

from shapes import HALF, SMALL, Kind, Panel, Query

from pharos.sweep import metrics as m

SWEEPS = '{sweep=~"$sweep"}'
POOLS = '{sweep=~"$sweep", pool=~"$pool"}'
WINDOW = "[$window]"
GOOD, WARN, BAD = "green", "orange", "red"


def of_sweeps(metric: m.Metric, *, by: str = "sweep") -> str:
    """A gauge of the chosen sweeps. `max`: a series names its process, and a resume is another one."""
    return f"max by ({by}) ({metric.exported}{SWEEPS})"


def of_pools(metric: m.Metric, *, by: str = "sweep, pool") -> str:
    return f"max by ({by}) ({metric.exported}{POOLS})"


def rate(metric: m.Metric, *, by: str = "sweep, pool") -> str:
    """What a counter of the chosen pools gained a second."""
    return f"sum by ({by}) (rate({metric.exported}{POOLS}{WINDOW}))"


def ray(name: str, *, by: str = "ip") -> str:
    """A gauge of Ray's own, by node."""
    return f"max by ({by}) ({name})"


def chart(
    title: str, says: str, *queries: Query, unit: str = "short", width: int = HALF, kind: Kind = "lines"
) -> Panel:
    return Panel(title=title, says=says, kind=kind, queries=queries, unit=unit, width=width)


def number(
    title: str,
    says: str,
    expr: str,
    *,
    unit: str = "short",
    decimals: int | None = None,
    limits: tuple[tuple[float, str], ...] = (),
) -> Panel:
    return Panel(
        title=title,
        says=says,
        kind="number",
        queries=(Query(expr=expr, legend="{{sweep}}"),),
        unit=unit,
        width=SMALL,
        decimals=decimals,
        limits=limits,
    )
