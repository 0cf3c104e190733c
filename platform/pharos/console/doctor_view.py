"""What `pharos doctor` prints: a table with a verdict and a remedy each, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pharos.plan.doctor import Check, Examination
from pharos.plan.doctor_verdicts import verdict
from pharos.plan.words import plural

STYLES = {"ok": "green", "warning": "bold yellow", "wrong": "bold red", "not checked": "dim"}


def show_examination(
    examination: Examination, lines: Sequence[Check], *, next_steps: Sequence[str], console: Console | None = None
) -> None:
    """Print one line a check, its remedy below it, the worst of all verdicts, and the next commands."""
    console = console or Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        found = Text()
        if line.nodes:
            found.append(f"{', '.join(line.nodes)}: ", style="bold")
        found.append(line.found)
        if line.remedy:
            found.append(f"\n→ {line.remedy}", style="dim")
        table.add_row(Text(line.verdict, style=STYLES[line.verdict]), line.name, found)
    console.print(table)
    console.print()
    worst = verdict(tuple(lines))
    console.print(Text.assemble("verdict: ", (worst, STYLES[worst]), _counted(examination, lines)), soft_wrap=True)
    for step in next_steps:
        console.print(Text(f"next:    {step}"), soft_wrap=True)


def examination_json(examination: Examination, lines: Sequence[Check]) -> dict[str, Any]:
    """The verdicts and the facts behind them, for scripts."""
    facts = asdict(examination)
    if examination.cluster is not None and examination.cluster.all_reduce is not None:
        measured = examination.cluster.all_reduce
        facts["cluster"]["all_reduce"] |= {
            "algorithm_bytes_per_s": measured.algorithm_bytes_per_s,
            "bus_bytes_per_s": measured.bus_bytes_per_s,
        }
    return {"verdict": verdict(tuple(lines)), "checks": [asdict(line) for line in lines]} | facts


def _counted(examination: Examination, lines: Sequence[Check]) -> str:
    num_wrong = sum(line.verdict == "wrong" for line in lines)
    num_warnings = sum(line.verdict == "warning" for line in lines)
    counted = [f"{num_wrong} wrong"] if num_wrong else []
    counted += [plural(num_warnings, "warning")] if num_warnings else []
    where = "this machine" if examination.cluster is None else plural(len(examination.nodes), "node")
    return f" ({', '.join([*counted, where])}, {examination.seconds:.0f} s)"
