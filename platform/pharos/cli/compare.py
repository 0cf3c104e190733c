"""The verbs that look at sweeps after they ran: compare, ui."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pharos.cli.app import COMPARE, app
from pharos.cli.options import STORAGE, SweepStorage, typed_again
from pharos.errors import TrackingError, UserError

if TYPE_CHECKING:
    from pharos.plan.comparison import ComparedSweep

NUM_SHOWN = 20
"""Trials that the table shows unless --top says otherwise; JSON and CSV have all."""
PIPED_WIDTH = 160


@app.command(rich_help_panel=COMPARE)
def compare(
    sweeps: Annotated[
        list[str],
        typer.Argument(metavar="SWEEP...", help="Names of sweeps, or their directories.", show_default=False),
    ],
    storage: SweepStorage = STORAGE,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Read the sweeps of these names from this MLflow store alone, without a log.")
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="EXPR", help="Only such trials: state=COMPLETED, lora.r>=16. Repeatable."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Order by a column or hyperparameter; -FIELD descends.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"Only the first N, and the baseline (table: {NUM_SHOWN}).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A CSV line for each trial, with all hyperparameters.")] = False,
) -> None:
    """Put the trials of one or more sweeps side by side, against the baseline. Needs no cluster."""
    from pharos.plan.comparison import side_by_side
    from pharos.plan.comparison_rows import wanted_trials
    from pharos.sweep.importance import importance_of

    if as_json and as_csv:
        raise UserError("--json and --csv are two forms of the same: give one of them.")
    read = [_read(sweep, storage, tracking_uri) for sweep in dict.fromkeys(sweeps)]
    comparison = side_by_side(list({(sweep.label, sweep.source): sweep for sweep in read}.values()))
    wanted = wanted_trials(comparison, filters=filters or (), sort=sort)
    shown_at_most = top if top is not None or as_json or as_csv else NUM_SHOWN
    shown = wanted_trials(comparison, filters=filters or (), sort=sort, top=shown_at_most)
    if as_csv:
        from pharos.plan.comparison_export import comparison_csv

        typer.echo(comparison_csv(comparison, shown), nl=False)
        return
    importance = {sweep.label: importance_of(sweep.space, sweep.scored()) for sweep in comparison.sweeps}
    if as_json:
        from pharos.plan.comparison_export import comparison_json

        typer.echo(json.dumps(comparison_json(comparison, shown, importance), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    from pharos import console

    is_plain = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console.show_comparison(
        comparison,
        shown,
        num_wanted=len(wanted),
        importance=importance,
        next_steps=_next_steps(comparison.sweeps, storage, tracking_uri),
        console=Console(highlight=False, width=PIPED_WIDTH if is_plain else None),
    )


@app.command(rich_help_panel=COMPARE)
def ui(
    storage: SweepStorage = STORAGE,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store to look at (default: the SQLite file in the storage).")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of MLflow on loopback.")] = 5000,
) -> None:
    """Open MLflow on the sweeps of a storage, until Ctrl-C. Of a server, say where it is."""
    from pharos.track.mlflow_client import is_there, registry_of, shown
    from pharos.track.mlflow_server import LOOPBACK, check_answers, check_port, mlflow_server

    uri = tracking_uri or registry_of(storage.absolute())
    if uri.startswith(("http:", "https:")):
        check_answers(uri)
        typer.echo(f"{shown(uri)}  MLflow, already running: open this address in a browser")
        return
    if not is_there(uri):
        raise TrackingError(
            f"there is no MLflow store at {shown(uri)}: no sweep has run there. "
            "Name the directory that holds your sweeps with --storage, or a server with --tracking-uri."
        )
    check_port(port)
    typer.echo(f"http://{LOOPBACK}:{port}  MLflow on {shown(uri)}, starting")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with mlflow_server(uri, port=port) as server:
            typer.echo("ready: open the address in a browser; Ctrl-C stops it")
            code = server.wait()
        raise TrackingError(f"MLflow's server ended by itself, with exit code {code}. Start it again: pharos ui.")
    except KeyboardInterrupt:
        typer.echo("stopped; the runs are kept")


def _read(sweep: str, storage: Path, tracking_uri: str | None) -> ComparedSweep:
    from pharos.track.comparisons import sweep_of_log, sweep_of_mlflow
    from pharos.track.sweeps import find_sweep

    if tracking_uri is not None:
        return sweep_of_mlflow(tracking_uri, sweep)
    return sweep_of_log(find_sweep(sweep, storage))


def _next_steps(sweeps: tuple[ComparedSweep, ...], storage: Path, tracking_uri: str | None) -> list[str]:
    """A sweep that is not done goes on first; then curves of every trial, and what becomes of a winner."""
    place = ["--tracking-uri", tracking_uri] if tracking_uri else typed_again(storage)
    open_ones = [sweep.label for sweep in sweeps if sweep.state == "RUNNING"]
    steps = [f"pharos sweep SPEC   goes on with {', '.join(open_ones)}, unless it runs now"] if open_ones else []
    if tracking_uri is None:
        commands = [_report_command(Path(sweep.source), storage, place) for sweep in sweeps]
        steps += [f"{command}   curves and seats on a page" for command in commands]
    steps.append(shlex.join(["pharos", "ui", *place]) + "   every run, in MLflow")
    models = dict.fromkeys(sweep.model for sweep in sweeps if sweep.model)
    return steps + [shlex.join(["pharos", "promote", name, *place]) + "   put its candidate to use" for name in models]


def _report_command(directory: Path, storage: Path, place: list[str]) -> str:
    """By name where the sweep lies in the storage, by its directory elsewhere."""
    by_name = [directory.name, *place] if directory.parent == storage.absolute() else [str(directory)]
    return shlex.join(["pharos", "report", *by_name])
