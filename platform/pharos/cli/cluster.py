"""The verbs about the machines of a cluster: doctor, watch-notices."""

from __future__ import annotations

import json
import shlex
import signal
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from pharos.cli.app import CLUSTER, app
from pharos.cli.options import STORAGE, TrackingUri, load

if TYPE_CHECKING:
    from pharos.plan.doctor import Wanted

INTERRUPTED = 130


class _Ended(BaseException):
    """SIGTERM: the machine or the cluster is being shut down. No `except Exception` may take it for a failure."""


@app.command(rich_help_panel=CLUSTER)
def doctor(
    spec: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="A sweep file, for its storage, tracking and base.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster: auto, or host:6379 (default: this machine)."),
    ] = None,
    storage: Annotated[str | None, typer.Option(help="Where sweeps keep their state (default: the spec's).")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Annotated[bool, typer.Option("--json", help="Verdicts and facts as one JSON object.")] = False,
) -> None:
    """Say whether this machine, or every node of a cluster, is fit to train, and what would mend it."""
    from rich.console import Console

    from pharos import console
    from pharos.plan.doctor_verdicts import checks, verdict
    from pharos.sweep.environment import set_environment

    wanted = _wanted(spec, storage, tracking_uri)
    screen = Console(highlight=False)
    set_environment(address=address or "")  # a Ray of our own, which would want a token, is not started
    from pharos.sweep.doctor import examine_cluster, examine_machine

    if address is None:
        examination = examine_machine(wanted)
    else:
        with screen.status("connecting") if screen.is_terminal and not as_json else nullcontext() as status:
            say = (lambda text: None) if status is None else (lambda text: status.update(f"looking at {text}"))
            examination = examine_cluster(wanted, address=address, say=say)
    lines = checks(examination)
    worst = verdict(lines)
    if as_json:
        typer.echo(json.dumps(console.examination_json(examination, lines), ensure_ascii=False, indent=2))
    else:
        given = {"--address": address, "--storage": storage, "--tracking-uri": tracking_uri}
        options = [word for name, value in given.items() if value for word in (name, value)]
        steps = [_next_step(worst, [str(spec)] if spec else [], options, on_cluster=address is not None)]
        console.show_examination(examination, lines, next_steps=steps, console=screen)
    raise typer.Exit(int(worst == "wrong"))


def _wanted(spec: Path | None, storage: str | None, tracking_uri: str | None) -> Wanted:
    """From the sweep file where one is given, else from what a sweep's file says by default."""
    from pharos.plan.doctor import Wanted
    from pharos.plan.paths import tracking_uri_of
    from pharos.spec.model import TrackingSpec
    from pharos.store.mirror import local_storage
    from pharos.store.uris import checked_storage, is_store

    loaded = load(spec, None, None, None) if spec is not None else None
    place = checked_storage(storage or (loaded.storage if loaded else str(STORAGE)))
    place = place if is_store(place) else str(Path(place).absolute())
    uri = tracking_uri or (loaded.tracking.uri if loaded else None)
    if uri is None:
        uri = tracking_uri_of(local_storage(place) if is_store(place) else Path(place))
    base = spec.absolute().parent / loaded.base if spec is not None and loaded is not None else None
    return Wanted(
        storage=place,
        tracking_uri=uri,
        experiment=loaded.tracking.experiment if loaded else TrackingSpec.model_fields["experiment"].default,
        paths=(str(base.resolve()),) if base is not None and base.exists() else (),
    )


def _next_step(worst: str, spec: list[str], options: list[str], *, on_cluster: bool) -> str:
    """What to type next. A plan takes no address and no tracking, and starts nothing."""
    if worst == "wrong":
        return f"{shlex.join(['pharos', 'doctor', *spec, *options])}  (once that is mended)"
    if on_cluster:
        return shlex.join(["pharos", "sweep", *(spec or ["SPEC"]), *options])
    return shlex.join(["pharos", "plan", *(spec or ["SPEC"])])


@app.command("watch-notices", rich_help_panel=CLUSTER)
def watch_notices(
    cloud: Annotated[str, typer.Option(metavar="auto|aws|gcp|azure", help="Whose metadata service to ask.")] = "auto",
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the metadata service (default: http://169.254.169.254).")
    ] = None,
    poll_s: Annotated[float, typer.Option(min=0.1, help="Seconds between two questions.")] = 5.0,
    address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="The Ray cluster, host:port (default: the Ray of this machine).")
    ] = "auto",
    node_id: Annotated[
        str | None, typer.Option(metavar="ID", help="This machine's Ray node, where its addresses do not tell.")
    ] = None,
    rebalance: Annotated[
        bool, typer.Option(help="AWS: leave on a rebalance recommendation too, ahead of the interruption.")
    ] = True,
) -> None:
    """Run on a spot node: when the cloud announces its end, have Ray drain it, so that pools checkpoint and leave."""
    from pharos.errors import PharosError
    from pharos.plan.notices import Notice
    from pharos.sweep.draining import drain, gcs_address, node_of_this_machine
    from pharos.sweep.environment import set_environment
    from pharos.sweep.metadata import cloud_named
    from pharos.sweep.notices import Watcher

    def say(text: str) -> None:
        typer.echo(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}")

    def mark(notice: Notice) -> str:
        gcs = gcs_address(address)
        return drain(node_of_this_machine(gcs, node_id), notice, gcs=gcs)

    set_environment(address=address)
    signal.signal(signal.SIGTERM, _end)
    try:
        watched = cloud_named(cloud, endpoint=endpoint, rebalance=rebalance)
        say(f"asking {watched.name}'s metadata service" + ("" if watched.holds else f" every {poll_s:g} s"))
        try:
            node = node_of_this_machine(gcs_address(address), node_id)
            say(f"this machine is node {node.address} ({node.node_id[:12]}) of the cluster")
        except PharosError as error:
            # The watcher may be started before Ray is; which node this is will be asked again when it matters.
            say(f"no node to drain yet: {error.message}")
        Watcher(cloud=watched, mark=mark, say=say, poll_s=poll_s).watch()
    except _Ended:
        say("ended")
    except KeyboardInterrupt:
        say("ended")
        raise typer.Exit(INTERRUPTED) from None


def _end(signum: int, frame: FrameType | None) -> None:
    raise _Ended
