"""The verbs of Pharos, and the one place where an error becomes a message and an exit code.

Each module here holds the verbs of one kind. Imports of the working rooms stay inside the verbs: `pharos --help` and
`pharos plan` load no torch, Ray or MLflow.
"""

from __future__ import annotations

import sys

import typer

from pharos import __version__
from pharos.cli import cluster, compare, data, export, jobs, promotion, report, rerun, sweeps, top, use
from pharos.cli.app import app
from pharos.errors import PharosError

__all__ = [
    "app",
    "cluster",
    "compare",
    "data",
    "export",
    "jobs",
    "main",
    "promotion",
    "report",
    "rerun",
    "sweeps",
    "top",
    "use",
]


@app.command(rich_help_panel="Pharos")
def version() -> None:
    """Print the version."""
    typer.echo(f"pharos {__version__}")


def main() -> None:
    """Entry point of `pharos` and `python -m pharos`."""
    try:
        app()
    except PharosError as error:
        from pharos import console

        console.show_error(error)
        sys.exit(error.exit_code)
