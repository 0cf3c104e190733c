"""The verbs about which model is in use: promote, rollback, models."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated

import typer

from pharos.cli.app import USE, app
from pharos.cli.options import STORAGE, SweepStorage, TrackingUri, typed_again
from pharos.errors import HandOverError, UserError

REFUSED = HandOverError.exit_code
MAX_REASON = 1000
VERSION = re.compile(r"(.+)/(\d+)|(.+)@(.+)")


@app.command(rich_help_panel=USE)
def promote(
    model: Annotated[
        str,
        typer.Argument(metavar="NAME", help="NAME (its candidate), NAME@ALIAS or NAME/3.", show_default=False),
    ],
    margin: Annotated[
        float | None,
        typer.Option(metavar="LOSS", help="How much worse it may be, in test loss (default: it must be better)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote whatever the comparison says. Needs --reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why it is forced: recorded.")] = None,
    base: Annotated[Path | None, typer.Option(help="The original base's directory, if it has moved.")] = None,
    storage: SweepStorage = STORAGE,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make a version the champion: checked, and better on test rows than the one in use. Exit code 1: it is not."""
    if force and not (reason and reason.strip()):
        raise UserError("--force needs --reason TEXT: why this model is used although the comparison does not say so.")
    if reason is not None and not force:
        raise UserError("--reason is for --force alone: otherwise the figures are the reason. Leave it out.")
    _check_reason(reason)
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise UserError(f"--margin {margin:g}: it must be more than 0, in units of loss: 0.01 allows 0.01 more.")
    from pharos import console
    from pharos.handover.promotion import promote as run
    from pharos.track.mlflow_client import registry_of

    storage = storage.absolute()
    with console.told() as progress:
        outcome = run(
            model,
            storage=storage,
            tracking_uri=tracking_uri or registry_of(storage),
            margin=margin,
            force_reason=reason,
            base=base,
            progress=progress,
        )
    console.show_promotion(outcome, options=typed_again(storage, tracking_uri))
    if not outcome.is_champion:
        raise typer.Exit(REFUSED)


@app.command(rich_help_panel=USE)
def rollback(
    model: Annotated[str, typer.Argument(metavar="NAME", help="The registered model.", show_default=False)],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why: recorded.")] = None,
    storage: SweepStorage = STORAGE,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make the previous champion the champion again."""
    _check_reason(reason)
    from pharos import console
    from pharos.handover.promotion import rollback as run
    from pharos.track.mlflow_client import registry_of

    storage = storage.absolute()
    with console.told() as progress:
        outcome = run(
            model,
            storage=storage,
            tracking_uri=tracking_uri or registry_of(storage),
            reason=reason,
            progress=progress,
        )
    console.show_rollback(outcome, options=typed_again(storage, tracking_uri))


@app.command(rich_help_panel=USE)
def models(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="NAME, or NAME/3 or NAME@ALIAS for all that a version comes from."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    storage: SweepStorage = STORAGE,
    tracking_uri: TrackingUri = None,
) -> None:
    """List registered models: versions, aliases, metrics, who promoted them and why; of one version its lineage."""
    from pharos import console
    from pharos.track.mlflow_client import registry_of
    from pharos.track.model_list import list_models
    from pharos.track.model_versions import find_version

    storage = storage.absolute()
    uri = tracking_uri or registry_of(storage)
    written = (model or "").removeprefix("models:/")
    one = VERSION.fullmatch(written)
    if one is None:
        listed = list_models(uri, written or None)
        if as_json:
            typer.echo(json.dumps([entry.to_json() for entry in listed], indent=2, ensure_ascii=False))
        else:
            console.show_models(listed, options=typed_again(storage, tracking_uri), is_detailed=bool(written))
        return
    found = find_version(uri, one[1] or one[3], version=one[2], alias=one[4])
    [entry] = list_models(uri, found.model)
    [version] = [version for version in entry.versions if version.version == found.version]
    if as_json:
        typer.echo(json.dumps(version.to_json(), indent=2, ensure_ascii=False))
    else:
        console.show_version(version, files=found.artifacts, options=typed_again(storage, tracking_uri))


def _check_reason(reason: str | None) -> None:
    if reason is not None and len(reason) > MAX_REASON:
        raise UserError(f"--reason has {len(reason)} characters, a tag holds {MAX_REASON}: shorten it.")
