"""The verbs about the machines of a cluster: doctor, watch-notices."""

from __future__ import annotations

import signal
from datetime import datetime
from types import FrameType
from typing import Annotated

import typer

from pharos.cli.app import CLUSTER, app

INTERRUPTED = 130


class _Ended(Exception):
    """SIGTERM: the machine or the cluster is being shut down."""


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
    from pharos.sweep.metadata import cloud_named
    from pharos.sweep.notices import Watcher

    def say(text: str) -> None:
        typer.echo(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}")

    def mark(notice: Notice) -> str:
        gcs = gcs_address(address)
        return drain(node_of_this_machine(gcs, node_id), notice, gcs=gcs)

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
