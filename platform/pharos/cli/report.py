"""The verb that writes a sweep's page: report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pharos.cli.app import COMPARE, app
from pharos.cli.options import STORAGE, SweepName, SweepStorage


@app.command(rich_help_panel=COMPARE)
def report(
    sweep: SweepName,
    storage: SweepStorage = STORAGE,
    output: Annotated[Path | None, typer.Option(help="The file to write (default: report.html of the sweep).")] = None,
) -> None:
    """Write a sweep's page, also of one that runs or was stopped: curves, rungs, seats, leaderboard, in one file."""
    from pharos.plan import words
    from pharos.plan.paths import SweepPaths
    from pharos.store.mirror import push_file
    from pharos.sweep.result_file import write_report_of
    from pharos.track.sweeps import find_sweep

    directory = find_sweep(sweep, storage)
    path = (output or SweepPaths(directory.parent, directory.name).report).absolute()
    ledger = write_report_of(directory, path)
    push_file(path)
    trials = words.plural(len(ledger.trials), "trial")
    if ledger.ended is None:
        typer.echo(f"{directory.name}  no end in its log: it runs, or was interrupted; {trials} so far")
    else:
        typer.echo(f"{directory.name}  {ledger.ended.state}, {trials}")
    typer.echo(f"report    {path}")
    typer.echo(f"look      xdg-open {shlex.quote(str(path))}")
