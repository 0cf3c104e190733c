"""Sweeps as jobs of a Ray cluster: submitted with all they need, found again by the sweep's name, stopped, resumed.

A job's metadata says what it runs, so status and resume need the name alone; a token or a password is never in it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pharos
from pharos.errors import ClusterError, TrackingError
from pharos.plan.sweep_status import SweepStatus, for_people, last_status
from pharos.spec.fields import nearest
from pharos.spec.model import SweepSpec
from pharos.sweep.in_job import refuse_relative
from pharos.sweep.jobs_api import JobsApi
from pharos.sweep.luggage import pack

STOP_WAIT_S = 120
"""How long Ray waits for a stopped job to end in order before it kills it; by itself it would wait 3 s.

More than the driver gives its pools and MLflow together.
"""
ENVIRONMENT = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_S = 1.0
INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a job runs. spec: the sweep file's place in what travels, or below `submitted` of the sweep's storage.

    train: one fine-tune with the file's own values, instead of its search.
    """

    sweep: str
    spec: str
    storage: str
    tracking_uri: str | None = None
    overrides: tuple[str, ...] = ()
    train: bool = False

    def entrypoint(self, *, again: bool) -> str:
        """The command. again: of a job that has none of the files, and finds them below the storage."""
        verb = ["resume", self.sweep, "--file", self.spec] if again else ["train" if self.train else "sweep", self.spec]
        options = ["--train"] if again and self.train else []
        options += ["--storage", self.storage]
        options += [] if self.tracking_uri is None else ["--tracking-uri", self.tracking_uri]
        options += [word for override in self.overrides for word in ("--set", override)]
        return shlex.join(["python", "-m", "pharos", *verb, *options])

    def metadata(self) -> dict[str, str]:
        """As Ray keeps it with the job: text by text."""
        values = {"sweep": self.sweep, "spec": self.spec, "storage": self.storage, "set": json.dumps(self.overrides)}
        values |= {} if self.tracking_uri is None else {"tracking_uri": self.tracking_uri}
        values |= {"train": "true"} if self.train else {}
        return {f"pharos.{name}": value for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self | None:
        """None for the metadata of a job that is no sweep of ours."""
        values = {name.removeprefix("pharos."): value for name, value in metadata.items()}
        if not {"sweep", "spec", "storage"} <= values.keys():
            return None
        return cls(
            sweep=values["sweep"],
            spec=values["spec"],
            storage=values["storage"],
            tracking_uri=values.get("tracking_uri"),
            overrides=tuple(json.loads(values.get("set", "[]"))),
            train="train" in values,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepJob:
    """A job of a sweep. state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED. Times are seconds since the epoch."""

    id: str
    request: Request
    state: str
    started_s: float
    ended_s: float | None
    exit_code: int | None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


def submit(
    api: JobsApi,
    spec: SweepSpec,
    path: Path,
    *,
    tracking_uri: str | None,
    overrides: list[str],
    train: bool = False,
) -> SweepJob:
    """Submit a sweep, of which `spec` is what its file, the overrides and the options come to. train: as of Request.

    Raises what of it cannot work on a cluster: StorageError, TrackingError, DataError, BaseModelError; ClusterError
    where a job of that name still runs.
    """
    refuse_relative(spec.storage)
    _refuse_password(tracking_uri or spec.tracking.uri)
    luggage = pack(spec, path)
    request = Request(
        sweep=spec.name,
        spec=str(luggage.spec),
        storage=spec.storage,
        tracking_uri=tracking_uri,
        overrides=tuple(overrides),
        train=train,
    )
    with tempfile.TemporaryDirectory(prefix="pharos-submit-") as folder:
        luggage.copy_to(Path(folder) / "files")
        return _submit(api, request, folder=Path(folder))


def resume(api: JobsApi, sweep: str, *, tracking_uri: str | None = None) -> SweepJob:
    """Submit the last job of a sweep again; its file and rows are where the job kept them, below its storage.

    tracking_uri: where it tracks from now on; none: where it did.
    """
    _refuse_password(tracking_uri)
    request = latest(api, sweep).request
    request = request if tracking_uri is None else replace(request, tracking_uri=tracking_uri)
    with tempfile.TemporaryDirectory(prefix="pharos-submit-") as folder:
        return _submit(api, request, folder=Path(folder))


def _submit(api: JobsApi, request: Request, *, folder: Path) -> SweepJob:
    """folder: of this submission; its `files`, where there are any, become the job's working directory."""
    before = jobs_of(api, request.sweep)
    running = [job for job in before if not job.has_ended]
    if running:
        raise ClusterError(
            f"name={request.sweep} runs on {api.address} already, as job {running[-1].id}. Stop it first "
            f"(pharos stop {request.sweep} --address {api.address}), or give this sweep another name."
        )
    job_id = _next_id(request.sweep, [job.id for job in before])
    package = folder / "package" / "pharos"
    shutil.copytree(Path(pharos.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment: dict[str, Any] = {"py_modules": [str(package)], "env_vars": dict(ENVIRONMENT)}
    has_files = (folder / "files").is_dir()
    if has_files:
        environment["working_dir"] = str(folder / "files")
    api.submit(
        entrypoint=request.entrypoint(again=not has_files),
        submission_id=job_id,
        runtime_env=environment,
        metadata=request.metadata(),
    )
    return _job(api.job(job_id), request)


def jobs_of(api: JobsApi, sweep: str | None = None) -> list[SweepJob]:
    """The jobs of a sweep, or of all, the first first."""
    found = []
    for details in api.jobs():
        request = Request.from_metadata(details.metadata or {})
        if request is not None and sweep in (None, request.sweep):
            found.append(_job(details, request))
    return found


def latest(api: JobsApi, sweep: str) -> SweepJob:
    """The last job of a sweep. Raises ClusterError, with the sweeps that there are, where it has none."""
    found = jobs_of(api)
    of_it = [job for job in found if job.request.sweep == sweep]
    if of_it:
        return of_it[-1]
    names = sorted({job.request.sweep for job in found})
    near = nearest(sweep, names)
    there = f"Did you mean {near}?" if near else f"There are: {', '.join(names)}." if names else "It has none at all."
    raise ClusterError(
        f"sweep={sweep}: no job of {api.address} is a sweep of this name. {there} A head that was started anew has "
        "forgotten its jobs: submit the file again, and the sweep goes on from its storage."
    )


def refreshed(api: JobsApi, job: SweepJob) -> SweepJob:
    """The same job as it is now."""
    return _job(api.job(job.id), job.request)


def status(api: JobsApi, job: SweepJob) -> SweepStatus | None:
    """How far it is, by what it or the jobs before it have written; none before the first has begun.

    A job that finds nothing left to do, or has not come to it, says nothing of the sweep.
    """
    before = [other for other in jobs_of(api, job.request.sweep) if other.id != job.id]
    for each in (job, *reversed(before)):
        found = last_status(api.log(each.id).splitlines())
        if found is not None:
            return found
    return None


def log_lines(api: JobsApi, job: SweepJob) -> list[str]:
    """What the job has written for people so far."""
    return for_people(api.log(job.id).splitlines())


def follow(
    api: JobsApi,
    job: SweepJob,
    *,
    until: Callable[[SweepStatus | None], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """The lines of a job as it writes them, until it has ended or its status is as wanted."""
    told = 0
    while True:
        has_ended = refreshed(api, job).has_ended  # before the log is read, so that its last lines are in it
        text = api.log(job.id)
        lines = text.splitlines() if has_ended else text.splitlines()[: text.count("\n")]
        yield from for_people(lines[told:])
        told = len(lines)
        if has_ended or until(last_status(lines)):
            return
        sleep(POLL_S)


def stop(api: JobsApi, job: SweepJob) -> None:
    """Have a job end in order: it hears SIGINT, and is killed after STOP_WAIT_S."""
    api.stop(job.id)


def wait(api: JobsApi, job: SweepJob, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep) -> SweepJob:
    """The job once it has ended. Raises ClusterError where it has not within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not (job := refreshed(api, job)).has_ended:
        if time.monotonic() > deadline_s:
            raise ClusterError(f"job {job.id} has not ended within {timeout_s:.0f} s; it is {job.state}.")
        sleep(POLL_S)
    return job


def exit_code(job: SweepJob) -> int:
    """Of a command that has waited for the job."""
    if job.state == "SUCCEEDED":
        return 0
    return INTERRUPTED if job.state == "STOPPED" else job.exit_code or 1


def _job(details: Any, request: Request) -> SweepJob:
    return SweepJob(
        id=str(details.submission_id),
        request=request,
        state=str(getattr(details.status, "value", details.status)),
        started_s=(details.start_time or 0) / 1000,
        ended_s=None if not details.end_time else details.end_time / 1000,
        exit_code=details.driver_exit_code,
    )


def _next_id(sweep: str, before: list[str]) -> str:
    numbers = [int(found[1]) for job in before if (found := re.fullmatch(rf"pharos-{re.escape(sweep)}-(\d+)", job))]
    return f"pharos-{sweep}-{max(numbers, default=0) + 1:04d}"


def _refuse_password(uri: str | None) -> None:
    """What a job is submitted with can be read by everyone who may use the cluster, and stays in its history."""
    if uri is not None and re.search(r"://[^/@]*:[^/@]*@", uri):
        shown = re.sub(r"://[^/@]*@", "://", uri)
        raise TrackingError(
            "tracking.uri holds a password, and what a job is submitted with is kept by the cluster in the open. Set "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the cluster's nodes, and give {shown}"
        )
