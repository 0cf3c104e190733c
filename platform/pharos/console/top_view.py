"""One frame of `pharos top`: the live view of the sweep, and below it its pools: how busy they are, and with what."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pharos.console.live_view import LiveState, live_view
from pharos.plan import words
from pharos.plan.standing import PoolStanding, Standing

PART_STYLES = {
    "gather": "magenta",
    "forward": "blue",
    "backward": "cyan",
    "optimizer": "green",
    "batch": "white",
    "evaluation": "yellow",
    "checkpoint": "red",
    "exchange": "bright_black",
}
"""Parts of a pool's time, in the order of the bar."""
BAR_WIDTH, MIN_BAR_WIDTH = 24, 8
WITHOUT_BAR = 72
"""Columns of all that stands beside the bar."""
MAX_POOLS = 6
BUSY, IDLE = 0.8, 0.5
"""Occupancy from which on a pool is as it should be, and below which it is not."""


def top_view(state: LiveState, now: Standing, *, width: int, height: int, now_s: float) -> RenderableType:
    """The frame, at most `height` lines of `width` columns."""
    pools = _pools(now.pools, width=width)
    below: list[RenderableType] = [Text(), _totals(now), *pools]
    num_below = 2 + (2 + min(len(now.pools), MAX_POOLS) if now.pools else 0)
    num_below += len(now.pools) > MAX_POOLS
    sweep = live_view(state, width=width, height=max(8, height - num_below), now_s=now_s)
    return Group(sweep, *below)


def told_ended(now: Standing, reason: str) -> str:
    """How a sweep ended, in a line."""
    best = "" if now.best is None else f"; best {words.short_trial(now.best)}, {_best(now)}"
    return f"{now.sweep}  {now.state}: {reason}{best}"


def _best(now: Standing) -> str:
    return f"{now.metric} {words.metric(now.metric, now.best_score)}"


def _totals(now: Standing) -> Text:
    bad = now.trials["DIVERGED"] + now.trials["FAILED"]
    told = [f"{now.node_hours:.3g} node-hours"]
    if now.cost is not None:
        told.append(f"cost {now.cost:,.2f}")
    text = Text("  ".join(told), style="dim", no_wrap=True, overflow="ellipsis")
    if now.pools_lost:
        text.append(f"  {words.plural(now.pools_lost, 'pool')} lost", style="red")
    if bad:
        text.append(f"  {bad} diverged or failed", style="red")
    return text


def _pools(pools: Sequence[PoolStanding], *, width: int) -> list[RenderableType]:
    """A table of the open pools, and what the colours of their bars mean."""
    if not pools:
        return []
    has_peak = any(pool.peak_share is not None for pool in pools)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("pool", "seats", "used", "clocks/s", "tokens/s", "pads", "FLOP/s", *(["of peak"] if has_peak else [])):
        table.add_column(name, justify="left" if name == "pool" else "right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("time", no_wrap=False)
    bar_width = min(BAR_WIDTH, max(MIN_BAR_WIDTH, width - WITHOUT_BAR))
    for pool in pools[:MAX_POOLS]:
        peak = [words.NOTHING if pool.peak_share is None else f"{pool.peak_share:.0%}"] if has_peak else []
        table.add_row(
            pool.pool,
            f"{pool.taken}/{pool.seats}",
            _used(pool),
            f"{pool.clocks_per_s:.2f}",
            words.count(pool.trained_tokens_per_s),
            f"{pool.pad_share:.0%}",
            words.count(pool.flops_per_s),
            *peak,
            f"{pool.memory_bytes / 1e9:.1f} GB",
            _bar(pool, width=bar_width),
        )
    parts: list[RenderableType] = [table]
    if len(pools) > MAX_POOLS:
        parts.append(Text(f"and {words.plural(len(pools) - MAX_POOLS, 'more pool')}", style="dim"))
    return [*parts, _legend(pools)]


def _used(pool: PoolStanding) -> Text:
    style = "green" if pool.occupancy >= BUSY else "red" if pool.occupancy < IDLE else "yellow"
    return Text(f"{pool.occupancy:.0%}", style=style if pool.shares else "dim")


def _bar(pool: PoolStanding, *, width: int) -> Text:
    """The pool's time, each part as wide as its share; ends are rounded on the sum, so that they fill the bar."""
    bar, done, drawn = Text(no_wrap=True, overflow="crop"), 0.0, 0
    for part, style in PART_STYLES.items():
        done += pool.shares.get(part, 0.0)
        bar.append("━" * (round(done * width) - drawn), style=style)
        drawn = round(done * width)
    return bar


def _legend(pools: Sequence[PoolStanding]) -> Text:
    """Names in the colours of the bar; of a single pool with their shares."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for part, style in PART_STYLES.items():
        share = pools[0].shares.get(part, 0.0)
        if len(pools) == 1 and round(share, 2) == 0:
            continue
        text.append("━ ", style=style).append(part + (f" {share:.0%}" if len(pools) == 1 else "") + "  ", style="dim")
    return text
