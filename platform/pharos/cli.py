"""The verbs of Pharos, and the one place where an error becomes a message and an exit code.

Imports of the working rooms stay inside the verbs: `pharos --help` and `pharos plan` load no torch, Ray or MLflow.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from pharos import __version__
from pharos.errors import PharosError, UserError
from pharos.spec.model import SweepSpec

INTERRUPTED = 130
"""Exit code of a sweep that was interrupted, as a shell reports SIGINT."""

app = typer.Typer(
    name="pharos",
    help="Search and train LoRA fine-tunes: many trials at once over one frozen, sharded base.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data_app = typer.Typer(name="data", help="Look at rows before anything is trained on them.", no_args_is_help=True)
app.add_typer(data_app)

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep file, YAML.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: --set optim.learning_rate=1e-4. Repeatable."),
]
Storage = Annotated[Path | None, typer.Option(help="Directory of the sweep's state (default: the spec's).")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow tracking URI (default: the spec's, else SQLite).")]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster (default: start Ray on this machine)."),
]
DashboardPort = Annotated[int | None, typer.Option(help="Port of Ray's dashboard on loopback (default: a free one).")]


@app.command()
def plan(
    spec: SpecPath,
    overrides: Overrides = None,
    storage: Storage = None,
    train: Annotated[bool, typer.Option("--train", help="Plan `pharos train` instead of the sweep.")] = False,
) -> None:
    """Say what a sweep will do and whether it fits, without starting anything."""
    from pharos import console
    from pharos.sweep.staging import outlook

    loaded = _load(spec, overrides, storage, None)
    loaded = _without_search(loaded) if train else loaded
    with _places(spec, overrides, storage, None):
        console.show_plan(outlook(loaded, root=spec.absolute().parent), loaded)


@app.command()
def sweep(
    spec: SpecPath,
    overrides: Overrides = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    dashboard_port: DashboardPort = None,
) -> None:
    """Search: train many trials at once, then merge, check and register the best. Run again to resume."""
    loaded = _load(spec, overrides, storage, tracking_uri)
    with _places(spec, overrides, storage, tracking_uri):
        _run(loaded, spec, address, dashboard_port)


@app.command()
def train(
    spec: SpecPath,
    overrides: Overrides = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    dashboard_port: DashboardPort = None,
) -> None:
    """Fine-tune once with the spec's own values, over all workers; tracked, merged and registered like a sweep."""
    loaded = _without_search(_load(spec, overrides, storage, tracking_uri))
    with _places(spec, overrides, storage, tracking_uri):
        _run(loaded, spec, address, dashboard_port)


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
    spec = _load(Path(target), overrides, None, None) if is_sweep else _spec_of_file(target, overrides)
    root = Path(target).absolute().parent if is_sweep else Path.cwd()
    with _places(Path(target), overrides, None, None) if is_sweep else _target(target):
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


@app.command()
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


def _without_search(spec: SweepSpec) -> SweepSpec:
    """A sweep's file as one fine-tune. It gets a name of its own beside the sweep, and the same registered model."""
    from pharos.plan.sweep_plan import single_trial_spec

    if spec.search is None:
        return single_trial_spec(spec)
    register = spec.register_.model_copy(update={"model": spec.register_.model or spec.name})
    return single_trial_spec(spec.model_copy(update={"name": f"{spec.name}-train", "register_": register}))


def _load(spec: Path, overrides: list[str] | None, storage: Path | None, tracking_uri: str | None) -> SweepSpec:
    from pharos.spec.load import load_spec

    loaded = load_spec(spec, overrides or ())
    if storage is not None:
        loaded = loaded.model_copy(update={"storage": str(storage)})
    if tracking_uri is not None:
        loaded = loaded.model_copy(update={"tracking": loaded.tracking.model_copy(update={"uri": tracking_uri})})
    return loaded


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


@contextmanager
def _places(spec: Path, overrides: list[str] | None, storage: Path | None, tracking_uri: str | None) -> Iterator[None]:
    """Say of a value that turned out not to work where it was written, as of one that the file's checks refuse."""
    from pharos.spec.load import located, written_places

    options = {"storage": storage, "tracking.uri": tracking_uri}
    places = written_places(spec, overrides or ())
    places = {key: place for key, place in places.items() if options.get(key) is None}
    try:
        yield
    except UserError as error:
        raise type(error)(located(error.message, places)) from error


def _run(spec: SweepSpec, path: Path, address: str | None, dashboard_port: int | None) -> None:
    """Plan, stage, run with a live view, show the result. An interrupt leaves a message and a sweep to resume."""
    from rich.console import Console

    from pharos import console
    from pharos.sweep.environment import set_environment
    from pharos.sweep.paths import SweepPaths
    from pharos.sweep.staging import outlook, stage

    root = path.absolute().parent
    screen = Console(highlight=False)
    plan = outlook(spec, root=root)
    console.show_plan(plan, spec, console=screen)
    signal.signal(signal.SIGTERM, _interrupt)
    set_environment(address=address)
    try:
        with console.LiveSweep(screen, plan) as view:
            staged = stage(spec, root=root, progress=view.phase)
            from pharos.sweep.driver import Cluster, run_sweep

            result = run_sweep(staged, cluster=Cluster(address=address, dashboard_port=dashboard_port), view=view)
    except KeyboardInterrupt:
        screen.print(
            "Stopped. Finished trials are kept, the others resume: run the same command again.", soft_wrap=True
        )
        sys.exit(INTERRUPTED)
    paths = SweepPaths(staged.storage, spec.name)
    console.show_result(
        result,
        root=str(paths.root),
        model_dir=str(paths.merged),
        tracking_uri=spec.tracking.uri or paths.tracking_uri,
        console=screen,
    )


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
