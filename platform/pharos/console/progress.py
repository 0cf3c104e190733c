"""How far something has come that takes a while: a bar on a terminal, a line each tenth anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

STEPS = 10


@contextmanager
def bytes_progress(what: str, *, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to be told (bytes done, bytes in all)."""
    console = console or Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _lines(what, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def steps_progress(what: str, *, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to be told (steps done, steps in all). Says nothing without a terminal."""
    console = console or Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda done, total: None
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str, console: Console) -> Callable[[int, int], None]:
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenths = STEPS * done // total if total else STEPS
        if tenths > told:
            told = tenths
            unit, size = ("GB", 10**9) if total >= 10**9 else ("MB", 10**6)
            line = f"{what}: {100 * tenths // STEPS}%, {done / size:.1f} of {total / size:.1f} {unit}"
            console.print(Text(line), soft_wrap=True)

    return tell
