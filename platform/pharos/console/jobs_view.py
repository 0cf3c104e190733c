"""Sweeps and jobs for a person: how far they are, in a table or one in full, and what to type next."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pharos.plan import words
from pharos.plan.sweep_status import SweepStatus
from pharos.plan.trial import trial_name

STYLES = {"COMPLETED": "green", "RUNNING": "cyan", "PENDING": "cyan", "FAILED": "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One sweep: state in one word, why where that needs saying, and where it runs: a job's id or a process.

    status: none before it has said anything. since_s: when it, or its job, began; seconds since the epoch.
    """

    sweep: str
    state: str
    where: str
    storage: str
    since_s: float
    why: str = ""
    status: SweepStatus | None = None


def show_sweeps(
    sweeps: Sequence[Shown],
    *,
    nothing: str,
    now: Callable[[], float] = time.time,
    console: Console | None = None,
) -> None:
    """A table, a sweep a line. nothing: what to say where there is none."""
    console = console or Console(highlight=False)
    if not sweeps:
        console.print(nothing, soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name, settings in (
        ("sweep", {"no_wrap": True}),
        ("state", {"no_wrap": True}),
        ("trials", {"justify": "right"}),
        ("best", {"justify": "right"}),
        ("trial", {}),
        ("since", {"justify": "right"}),
        ("where", {"overflow": "fold"}),
    ):
        table.add_column(name, **settings)
    for sweep in sweeps:
        status = sweep.status or SweepStatus(sweep=sweep.sweep)
        table.add_row(
            sweep.sweep,
            _state(sweep),
            f"{status.num_final}/{status.num_trials}" if status.num_trials else words.NOTHING,
            words.score(status.best_score),
            words.NOTHING if status.best is None else f"{status.best:04d}",
            _ago(sweep.since_s, now()),
            sweep.where,
        )
    console.print(table)


def show_sweep(sweep: Shown, *, now: Callable[[], float] = time.time, console: Console | None = None) -> None:
    """One sweep in full."""
    console = console or Console(highlight=False)
    console.print(Text.assemble((sweep.sweep, "bold"), "  ", _state(sweep), f"  {sweep.why}".rstrip()), soft_wrap=True)
    status = sweep.status
    lines = {"where": sweep.where, "storage": sweep.storage, "since": _since(sweep.since_s, now())}
    if status is None:
        lines["trials"] = "none yet"
    else:
        lines |= {"trials": _trials(status), "best": _best(status)}
        lines |= {"restarts": words.plural(status.restarts, "pool that died") if status.restarts else ""}
        lines |= {"now": status.phase if status.ended is None else "", "model": status.model or ""}
        lines["as of"] = _since(status.time_s, now())
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines.items():
        if value:
            table.add_row(name, value)
    console.print(table)


def show_kept(sweep: Shown, *, resume: Sequence[str], console: Console | None = None) -> None:
    """After a stop: what of the sweep is kept, and how it goes on."""
    console = console or Console(highlight=False)
    status = sweep.status
    if status is None:
        kept = "it had not begun"
    else:
        final, begun = status.num_final, sum(status.trials.values())
        left = f", {begun - final} go on from their last checkpoints" if begun > final else ""
        kept = f"{final} of {words.plural(status.num_trials, 'trial')} have ended and are kept{left}"
    console.print(Text.assemble((sweep.sweep, "bold"), "  ", _state(sweep), f"  {kept}"), soft_wrap=True)
    console.print(Text("resume  ", style="dim").append(shlex.join(resume), style="not dim"), soft_wrap=True)


def _state(sweep: Shown) -> Text:
    return Text(sweep.state, style=STYLES.get(sweep.state, "yellow"))


def _trials(status: SweepStatus) -> str:
    parts = [f"{number} {state}" for state, number in status.trials.items()]
    missing = status.num_trials - sum(status.trials.values())
    parts += [f"{missing} not begun"] if missing > 0 else []
    return f"{status.num_final} of {status.num_trials} have ended" + (f": {', '.join(parts)}" if parts else "")


def _best(status: SweepStatus) -> str:
    if status.best is None:
        return words.NOTHING
    against = "" if status.baseline_score is None else f", the baseline {words.score(status.baseline_score)}"
    return f"{trial_name(status.sweep, status.best)}, {status.metric} {words.score(status.best_score)}{against}"


def _since(then_s: float, now_s: float) -> str:
    if not then_s:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then_s)) + f", {_ago(then_s, now_s)} ago"


def _ago(then_s: float, now_s: float) -> str:
    return words.duration(now_s - then_s) if then_s else words.NOTHING
