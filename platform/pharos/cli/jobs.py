"""The verbs of sweeps that run elsewhere, or in another terminal: submit, status, logs, stop, resume."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pharos.cli.app import CLUSTER, app
from pharos.cli.options import (
    STORAGE,
    Overrides,
    SpecPath,
    Storage,
    TrackingUri,
    load,
    places_of,
    read_storage,
    typed_again,
)
from pharos.errors import ClusterError

if TYPE_CHECKING:
    from pharos.console.jobs_view import Shown
    from pharos.sweep.jobs import SweepJob
    from pharos.sweep.jobs_api import JobsApi
    from pharos.sweep.local_sweeps import LocalSweep

Dashboard = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
        metavar="URL",
        help="The cluster's dashboard, http://HEAD:8265 (default: this machine, no cluster).",
    ),
]
Sweep = Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep's name.", show_default=False)]
LocalStorage = Annotated[str, typer.Option(help="Without --address: directory that holds the sweep.")]


@app.command(rich_help_panel=CLUSTER)
def submit(
    spec: SpecPath,
    overrides: Overrides = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Dashboard = None,
    train: Annotated[bool, typer.Option("--train", help="Submit `pharos train` instead of the sweep.")] = False,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--no-wait", help="Follow it to its end; or not even to its start (default: until it trains)."
        ),
    ] = None,
) -> None:
    """Run a sweep as a job of a cluster: the file and the rows beside it, and Pharos itself, go along."""
    from pharos.sweep import jobs
    from pharos.sweep.in_job import refuse_relative

    loaded = load(spec, overrides, storage, tracking_uri, train=train)
    with places_of(spec, overrides, storage, tracking_uri):
        refuse_relative(loaded.storage)
        api = _cluster(address)
        job = jobs.submit(api, loaded, spec, tracking_uri=tracking_uri, overrides=overrides or [], train=train)
    _tell(api, job, "submitted", wait=wait)


@app.command(rich_help_panel=CLUSTER)
def status(
    sweep: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name (default: all).", show_default=False)
    ] = None,
    address: Dashboard = None,
    storage: LocalStorage = str(STORAGE),
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of objects.")] = False,
) -> None:
    """How far sweeps are: on a cluster with --address, else those of a storage of this machine."""
    from pharos import console

    found = _of_storage(storage, sweep) if address is None else _of_cluster(address, sweep)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    elif sweep is None:
        none = f"{storage} holds no sweep." if address is None else f"No sweep was submitted to {address}."
        console.show_sweeps(found, nothing=none)
    else:
        console.show_sweep(found[0])


@app.command(rich_help_panel=CLUSTER)
def logs(
    sweep: Sweep,
    address: Dashboard = None,
    storage: LocalStorage = str(STORAGE),
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until it has ended; Ctrl-C leaves it running.")
    ] = False,
) -> None:
    """What a sweep's job has written. Without --address: where a sweep of this machine keeps its log."""
    if address is None:
        if follow:
            raise ClusterError("--follow is for the job of a cluster: give its --address. Here, see pharos status.")
        paths = _local(sweep, storage).paths
        typer.echo(f"events  {paths.events}  (one JSON object a line; pharos report {sweep} makes a page of them)")
        typer.echo(f"ray     {paths.ray}")
        typer.echo("What it prints, the terminal has in which it was started.")
        return
    from pharos.sweep import jobs

    api = _cluster(address)
    job = jobs.latest(api, sweep)
    if not follow:
        typer.echo("\n".join(jobs.log_lines(api, job)))
        return
    with _left_running(api, job):
        for line in jobs.follow(api, job, until=lambda _: False):
            typer.echo(line)


@app.command(rich_help_panel=CLUSTER)
def stop(
    sweep: Sweep,
    address: Dashboard = None,
    storage: LocalStorage = str(STORAGE),
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it has ended.")] = True,
) -> None:
    """End a sweep in order: checkpoints are written, its run is closed, and `pharos resume` goes on."""
    from pharos import console

    if address is None:
        stopped, again = _stop_here(sweep, storage, wait=wait)
    else:
        stopped, again = _stop_job(address, sweep, wait=wait)
    if stopped is None:
        typer.echo(f"{sweep} was asked to stop: {shlex.join(['pharos', 'status', sweep, *again])} says when it has")
    else:
        console.show_kept(stopped, resume=["pharos", "resume", sweep, *again])


@app.command(rich_help_panel=CLUSTER)
def resume(
    sweep: Sweep,
    address: Dashboard = None,
    storage: LocalStorage = str(STORAGE),
    tracking_uri: TrackingUri = None,
    wait: Annotated[bool | None, typer.Option("--wait/--no-wait", help="As for `pharos submit`.")] = None,
    file: Annotated[str | None, typer.Option(hidden=True, help="Given by `resume` to the job that it submits.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", hidden=True, help="As --file.")] = None,
    train: Annotated[bool, typer.Option("--train", hidden=True, help="As --file.")] = False,
) -> None:
    """Go on with a sweep that was stopped or broke off: nothing but its name is needed."""
    from pharos.cli.sweeps import run_spec
    from pharos.sweep.in_job import is_job, kept_file

    if is_job() and file is not None:
        again = kept_file(storage, sweep, file)
        loaded = load(again, overrides, storage, tracking_uri, train=train)
        with places_of(again, overrides, storage, tracking_uri):
            run_spec(loaded, again.parent, address=address, dashboard_port=None)
        return
    if address is not None:
        from pharos.sweep import jobs

        api = _cluster(address)
        _tell(api, jobs.resume(api, sweep, tracking_uri=tracking_uri), "resumed", wait=wait)
        return
    from pharos.sweep.local_sweeps import spec_in_log

    spec, root = spec_in_log(_local(sweep, storage), tracking_uri)
    run_spec(spec, root, address=None, dashboard_port=None)


def _local(sweep: str, storage: str) -> LocalSweep:
    from pharos.sweep.local_sweeps import local_sweep

    return local_sweep(sweep, read_storage(storage))


def _stop_job(address: str, sweep: str, *, wait: bool) -> tuple[Shown | None, list[str]]:
    """The sweep once it has stopped, none where that is not waited for; and the options that find it again."""
    from pharos.sweep import jobs

    api = _cluster(address)
    job = jobs.latest(api, sweep)
    if job.has_ended:
        raise ClusterError(f"sweep={sweep}: job {job.id} is {job.state}: there is nothing to stop.")
    jobs.stop(api, job)
    again = ["--address", api.address]
    return _job_shown(api, jobs.wait(api, job, timeout_s=2 * jobs.STOP_WAIT_S)) if wait else None, again


def _stop_here(sweep: str, storage: str, *, wait: bool) -> tuple[Shown | None, list[str]]:
    """As `_stop_job`, of a sweep in another terminal."""
    from pharos.sweep.local_sweeps import interrupt, wait_until_free

    local = _local(sweep, storage)
    interrupt(local)
    return _local_shown(wait_until_free(local)) if wait else None, typed_again(local.paths.storage)


def _cluster(address: str | None) -> JobsApi:
    from pharos.sweep.jobs_api import JobsApi

    if address is None:
        raise ClusterError(
            "--address is missing: that of the cluster's dashboard, http://HEAD:8265. `pharos sweep` runs it here."
        )
    return JobsApi(address)


def _tell(api: JobsApi, job: SweepJob, what: str, *, wait: bool | None) -> None:
    """Say where the job is, follow it as far as was asked for, and end with its exit code where it has ended."""
    from pharos.sweep import jobs

    name, at = job.request.sweep, f"--address {shlex.quote(api.address)}"
    typer.echo(f"{name} {what} as job {job.id} of {api.address}")
    if wait is not False:
        with _left_running(api, job):
            for line in jobs.follow(api, job, until=lambda status: status is not None and not wait):
                typer.echo(line)
        job = jobs.refreshed(api, job)
    if not job.has_ended:
        for does, verb in (("see", "status"), ("follow", "logs --follow"), ("end", "stop")):
            words = verb.split()
            typer.echo(f"{does:8}" + shlex.join(["pharos", words[0], name, *words[1:]]) + f" {at}")
        return
    if job.state == "FAILED":
        typer.echo(f"job {job.id} failed, exit code {job.exit_code}", err=True)
    if code := jobs.exit_code(job):
        sys.exit(code)


@contextmanager
def _left_running(api: JobsApi, job: SweepJob) -> Iterator[None]:
    """Ctrl-C while a job is followed ends the following alone."""
    from pharos.cli.sweeps import INTERRUPTED

    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"{job.request.sweep} goes on. To end it: pharos stop {job.request.sweep} --address {api.address}")
        sys.exit(INTERRUPTED)


def _of_cluster(address: str, sweep: str | None) -> list[Shown]:
    """The last job of a sweep, or of each that the cluster knows."""
    from pharos.sweep import jobs

    api = _cluster(address)
    if sweep is not None:
        return [_job_shown(api, jobs.latest(api, sweep))]
    last = {job.request.sweep: job for job in jobs.jobs_of(api)}
    return [_job_shown(api, job) for job in last.values()]


def _of_storage(storage: str, sweep: str | None) -> list[Shown]:
    from pharos.sweep.local_sweeps import local_sweeps

    found = local_sweeps(read_storage(storage)) if sweep is None else [_local(sweep, storage)]
    return [_local_shown(each) for each in found]


def _job_shown(api: JobsApi, job: SweepJob) -> Shown:
    from pharos.console.jobs_view import Shown
    from pharos.sweep import jobs

    found = jobs.status(api, job)
    state = {"SUCCEEDED": "COMPLETED"}.get(job.state, job.state)
    why = f"exit code {job.exit_code}: pharos logs {job.request.sweep} says more" if job.state == "FAILED" else ""
    return Shown(
        sweep=job.request.sweep,
        state=state,
        why=why or (found.reason if found is not None and job.has_ended else ""),
        where=f"job {job.id}",
        storage=job.request.storage,
        since_s=job.started_s,
        status=found,
    )


def _local_shown(local: LocalSweep) -> Shown:
    """A log without an end is that of a sweep that runs, or of one that broke off: the lock tells which."""
    from pharos.console.jobs_view import Shown
    from pharos.store.mirror import typed_storage

    found, holder = local.status, local.holder
    broken = "INTERRUPTED" if found.ended is None else found.ended
    return Shown(
        sweep=local.paths.sweep,
        state=broken if holder is None else "RUNNING",
        why=found.reason if holder is None else "",
        where="no process" if holder is None else f"process {holder.pid or 'unknown'} of {holder.host}",
        storage=typed_storage(local.paths.storage),
        since_s=found.session_s,
        status=found,
    )
