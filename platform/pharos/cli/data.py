"""The verbs about data: data check."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pharos.cli.app import TRAIN, app
from pharos.cli.options import Overrides, load, places_of
from pharos.errors import UserError
from pharos.spec.model import SweepSpec

data_app = typer.Typer(name="data", help="Look at rows before anything is trained on them.", no_args_is_help=True)
app.add_typer(data_app, rich_help_panel=TRAIN)


@data_app.command("check")
def data_check(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The sweep file, or a data file or glob.", show_default=False)
    ],
    overrides: Overrides = None,
    base: Annotated[
        Path | None, typer.Option(help="Directory of a tokenizer (default: the spec's base; for a file builtin:tiny).")
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also show N training rows as the model reads them.")
    ] = 0,
    row: Annotated[list[str] | None, typer.Option(metavar="FILE:LINE", help="Also show this row. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as one JSON object.")] = False,
) -> None:
    """Say what is in the rows and what is wrong with them, by file and row. Exit code 2: a sweep would refuse them."""
    from pharos import console
    from pharos.data.check_files import Wanted, check_files
    from pharos.data.check_report import obstacles, report_json

    is_sweep = Path(target).suffix in (".yaml", ".yml")
    spec = load(Path(target), overrides, None, None) if is_sweep else _spec_of_file(target, overrides)
    root = Path(target).absolute().parent if is_sweep else Path.cwd()
    with places_of(Path(target), overrides, None, None) if is_sweep else _target(target):
        report, shown = check_files(
            spec,
            root=root,
            tokenizer_dir=base or _tokenizer(spec, root),
            tokenizer_name=str(base or spec.base),
            is_divided=is_sweep,
            wanted=Wanted(count=show, places=tuple(row or ())),
        )
    if as_json:
        typer.echo(json.dumps({"target": target} | report_json(report, shown), ensure_ascii=False, indent=2))
    else:
        again = ["pharos", "data", "check", target, *(["--base", str(base)] if base else [])]
        again += [word for override in overrides or () for word in ("--set", override)]
        console.show_check(
            report, target=target, command=shlex.join(again), is_sweep=is_sweep, has_own_tokenizer=base is not None
        )
        console.show_rows(shown)
    if obstacles(report):
        raise typer.Exit(UserError.exit_code)


def _spec_of_file(target: str, overrides: list[str] | None) -> SweepSpec:
    """A data file as a sweep of defaults. What no one has asked for is no error: longer rows are counted as cut."""
    from pharos.spec.load import spec_of_text

    fields = {"name": "check", "base": "builtin:tiny", "data": {"train": target, "long_rows": "truncate"}}
    return spec_of_text(json.dumps(fields), where="pharos data check", overrides=overrides or ())


def _tokenizer(spec: SweepSpec, root: Path) -> Path:
    from pharos.sweep.staging import tokenizer_directory

    return tokenizer_directory(spec, root=root)


@contextmanager
def _target(target: str) -> Iterator[None]:
    """Say of a name that it was given as TARGET, since a data file alone has no data.train."""
    try:
        yield
    except UserError as error:
        given, said = f"data.train={target!r}", f"TARGET={target!r}"
        raise type(error)(error.message.replace(given, said)) from error
