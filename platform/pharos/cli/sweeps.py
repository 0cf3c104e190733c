"""The verbs that plan and train: plan, sweep, train."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from pharos.cli.app import TRAIN, app
from pharos.cli.options import (
    Address,
    DashboardPort,
    Overrides,
    SpecPath,
    Storage,
    TrackingUri,
    load,
    places_of,
    typed_again,
)
from pharos.spec.model import SweepSpec

INTERRUPTED = 130
"""Exit code of a sweep that was interrupted, as a shell reports SIGINT."""


@app.command(rich_help_panel=TRAIN)
def plan(
    spec: SpecPath,
    overrides: Overrides = None,
    storage: Storage = None,
    train: Annotated[bool, typer.Option("--train", help="Plan `pharos train` instead of the sweep.")] = False,
) -> None:
    """Say what a sweep will do and whether it fits, without starting anything."""
    from pharos import console
    from pharos.sweep.staging import outlook

    loaded = load(spec, overrides, storage, None, train=train)
    with places_of(spec, overrides, storage, None):
        console.show_plan(outlook(loaded, root=spec.absolute().parent), loaded)


@app.command(rich_help_panel=TRAIN)
def sweep(
    spec: SpecPath,
    overrides: Overrides = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    dashboard_port: DashboardPort = None,
) -> None:
    """Search: train many trials at once, then merge, check and register the best. Run again to resume."""
    loaded = load(spec, overrides, storage, tracking_uri)
    with places_of(spec, overrides, storage, tracking_uri):
        _run(loaded, spec, address, dashboard_port)


@app.command(rich_help_panel=TRAIN)
def train(
    spec: SpecPath,
    overrides: Overrides = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    dashboard_port: DashboardPort = None,
) -> None:
    """Fine-tune once with the spec's own values, over all workers; tracked, merged and registered like a sweep."""
    loaded = load(spec, overrides, storage, tracking_uri, train=True)
    with places_of(spec, overrides, storage, tracking_uri):
        _run(loaded, spec, address, dashboard_port)


def _run(spec: SweepSpec, path: Path, address: str | None, dashboard_port: int | None) -> None:
    """Run a sweep's file; as a job of a cluster, from where it stays when the job has ended."""
    from pharos.sweep.in_job import is_job, keep_files, refuse_relative

    if is_job():
        refuse_relative(spec.storage)
        path = keep_files(spec, path).absolute()
        # Ray may take the job's directory away or make it anew (a second node of one machine does), under its feet.
        os.chdir(path.parent)
    run_spec(spec, path.absolute().parent, address=address, dashboard_port=dashboard_port)


def run_spec(spec: SweepSpec, root: Path, *, address: str | None, dashboard_port: int | None) -> None:
    """Plan, stage, run with a live view, show the result. An interrupt leaves a message and a sweep to resume.

    root: what the spec's relative paths are relative to.
    """
    from rich.console import Console

    from pharos import console
    from pharos.plan.paths import SweepPaths
    from pharos.sweep.environment import set_environment
    from pharos.sweep.in_job import is_job
    from pharos.sweep.staging import outlook, stage

    screen = Console(highlight=False)
    plan = outlook(spec, root=root)
    console.show_plan(plan, spec, console=screen)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if is_job():
        # What started the cluster may have had interrupts ignored, as scripts do in the background; jobs inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    set_environment(address=address)
    try:
        with console.LiveSweep(screen, plan) as live:
            view = console.StatusLines(live, sweep=spec.name, write=screen.out) if is_job() else live
            staged = stage(spec, root=root, progress=view.phase)
            from pharos.sweep.driver import Cluster, run_sweep

            result = run_sweep(staged, cluster=Cluster(address=address, dashboard_port=dashboard_port), view=view)
    except KeyboardInterrupt:
        screen.print(
            "Stopped. Finished trials are kept, the others resume: run the same command again.", soft_wrap=True
        )
        sys.exit(INTERRUPTED)
    from pharos.store.mirror import mirrored
    from pharos.store.uris import without_options
    from pharos.track.mlflow_client import shown

    paths = SweepPaths(staged.storage, spec.name)
    place = mirrored(paths.root)
    own_store = shown(spec.tracking.uri) if spec.tracking.uri else None
    console.show_result(
        result,
        root=str(paths.root) if place is None else without_options(place.shown),
        report=str(paths.report) if paths.report.exists() else None,
        model_dir=str(paths.merged),
        tracking_uri=own_store or paths.tracking_uri,
        options=typed_again(staged.storage, own_store),
        console=screen,
    )
