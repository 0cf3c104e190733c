"""The verbs that take a model out: merge, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pharos.cli.app import USE, app
from pharos.cli.options import STORAGE, SweepStorage

if TYPE_CHECKING:
    from pharos.handover.export import Exported

Output = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; it must not exist.", show_default=False)]
Base = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The base of an adapter, or of a trial whose base has moved.")
]
Registry = Annotated[str | None, typer.Option(help="MLflow tracking URI (default: SQLite in the storage).")]


@app.command(rich_help_panel=USE)
def merge(
    adapter: Annotated[
        str,
        typer.Argument(metavar="ADAPTER", help="Directory of an adapter, or a trial: NAME-0007.", show_default=False),
    ],
    output: Output,
    base: Base = None,
    storage: SweepStorage = STORAGE,
) -> None:
    """Merge an adapter into its base, shard by shard, into a plain model directory."""
    from pharos import console
    from pharos.handover import export

    with console.bytes_progress("merging") as progress:
        done = export.merge(adapter, output=output, storage=storage, base=base, progress=progress)
    _say(done)


@app.command("export", rich_help_panel=USE)
def export_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="NAME@champion, NAME/3, a trial (NAME-0007), or a directory.", show_default=False
        ),
    ],
    output: Output,
    form: Annotated[
        Literal["adapter", "merged"], typer.Option("--format", help="For plain PEFT, or plain transformers.")
    ] = "merged",
    base: Base = None,
    storage: SweepStorage = STORAGE,
    tracking_uri: Registry = None,
) -> None:
    """Write a model as a folder that plain PEFT or transformers load, with a model card."""
    from pharos import console
    from pharos.handover import export

    with console.bytes_progress("merging") as progress:
        done = export.export(
            model, form=form, output=output, storage=storage, tracking_uri=tracking_uri, base=base, progress=progress
        )
    _say(done)


def _say(done: Exported) -> None:
    """What was produced, where it is, and what to type next."""
    what = {"adapter": "adapter", "merged": "merged model"}[done.form]
    typer.echo(
        f"{done.model.shown}: {what}, {done.num_files} files, {done.size_bytes / 10**6:,.1f} MB, in {done.directory}"
    )
    typer.echo(f"card:    {done.directory / 'README.md'}")
    typer.echo(f"next:    pharos chat {done.directory}{f' --base {done.base}' if done.base else ''}")
