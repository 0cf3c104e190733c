"""Arguments and options that several verbs share, and the spec that they make together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pharos.errors import UserError
from pharos.spec.model import SweepSpec

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep file, YAML.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: --set optim.learning_rate=1e-4. Repeatable."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URI",
        help="Where its state lies: a directory, or s3://bucket/prefix (default: the spec's).",
    ),
]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow tracking URI (default: the spec's, else SQLite).")]
SweepName = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A sweep's name in the storage, or its directory.", show_default=False)
]
STORAGE = Path(SweepSpec.model_fields["storage"].default)


def read_storage(storage: str | Path) -> Path:
    """The directory in which a storage is read: of an object store its mirror here, once the store has answered."""
    if "://" not in str(storage):
        return Path(storage)
    from pharos.store.mirror import local_storage, mirrored

    directory = local_storage(storage)
    if (place := mirrored(directory)) is not None:
        place.store.check()
    return directory


SweepStorage = Annotated[
    Path,
    typer.Option(
        parser=read_storage,
        metavar="DIR|URI",
        help="Where the state of sweeps lies: a directory, or s3://bucket/prefix.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster (default: start Ray on this machine)."),
]
DashboardPort = Annotated[int | None, typer.Option(help="Port of Ray's dashboard on loopback (default: a free one).")]


def typed_again(storage: Path, tracking_uri: str | None = None) -> list[str]:
    """The options that a suggested command needs to find what this one found."""
    from pharos.store.mirror import typed_storage

    options = [] if storage.absolute() == STORAGE.absolute() else ["--storage", typed_storage(storage)]
    return options if tracking_uri is None else [*options, "--tracking-uri", tracking_uri]


def load(
    spec: Path, overrides: list[str] | None, storage: str | None, tracking_uri: str | None, *, train: bool = False
) -> SweepSpec:
    """What a sweep file, the overrides and the options come to. train: one fine-tune instead of the file's search."""
    from pharos.spec.load import load_spec

    loaded = load_spec(spec, overrides or ())
    if storage is not None:
        loaded = loaded.model_copy(update={"storage": storage})
    if tracking_uri is not None:
        loaded = loaded.model_copy(update={"tracking": loaded.tracking.model_copy(update={"uri": tracking_uri})})
    return _without_search(loaded) if train else loaded


def _without_search(spec: SweepSpec) -> SweepSpec:
    """A sweep's file as one fine-tune. It gets a name of its own beside the sweep, and the same registered model."""
    from pharos.plan.sweep_plan import single_trial_spec

    if spec.search is None:
        return single_trial_spec(spec)
    register = spec.register_.model_copy(update={"model": spec.register_.model or spec.name})
    return single_trial_spec(spec.model_copy(update={"name": f"{spec.name}-train", "register_": register}))


@contextmanager
def places_of(spec: Path, overrides: list[str] | None, storage: str | None, tracking_uri: str | None) -> Iterator[None]:
    """Say of a value that turned out not to work where it was written, as of one that the file's checks refuse."""
    from pharos.spec.load import located, written_places

    options = {"storage": storage, "tracking.uri": tracking_uri}
    places = written_places(spec, overrides or ())
    places = {key: place for key, place in places.items() if options.get(key) is None}
    try:
        yield
    except UserError as error:
        raise type(error)(located(error.message, places)) from error
