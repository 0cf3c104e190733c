"""A sweep that runs on this machine, found by its name below a storage: how far it is, and to have it end in order."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pharos.errors import StorageError
from pharos.plan.events import SweepStarted
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths
from pharos.plan.sweep_status import SweepStatus, status_of
from pharos.spec.model import SweepSpec
from pharos.store.mirror import fetch_folder, typed_storage
from pharos.sweep.in_job import submitted
from pharos.sweep.paths import Holder, lock_holder
from pharos.track.sweeps import find_sweep, log_of, sweeps_in

STOP_PATIENCE_S = 120
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSweep:
    """A sweep of a storage. holder: the process that runs it, none where none does."""

    paths: SweepPaths
    status: SweepStatus
    holder: Holder | None


def local_sweep(name: str, storage: Path) -> LocalSweep:
    """A sweep by its name or directory. Raises StorageError where there is none."""
    directory = find_sweep(name, storage)
    paths = SweepPaths(directory.parent, directory.name)
    holder = lock_holder(paths)
    ledger = Ledger.of(log_of(directory).read())
    return LocalSweep(paths=paths, status=status_of(ledger, sweep=paths.sweep), holder=holder)


def local_sweeps(storage: Path) -> list[LocalSweep]:
    """All sweeps of a storage by name. Raises StorageError where there is no such directory."""
    if not storage.is_dir():
        raise StorageError(f"storage={storage}: there is no such directory. Name one with --storage.")
    return [local_sweep(name, storage) for name in sweeps_in(storage)]


def interrupt(sweep: LocalSweep) -> None:
    """Send SIGTERM to the process that runs it, which one that was started in the background hears as any other.

    Raises StorageError where none does, or it runs on another machine.
    """
    name, holder = sweep.paths.sweep, sweep.holder
    if holder is None:
        raise StorageError(
            f"name={name} is not being run: there is nothing to stop. pharos status {name} says how it is."
        )
    if holder.host != socket.gethostname():
        raise StorageError(
            f"name={name} is run by another machine, {holder.host}. Stop it there, or, where it is a job of a cluster, "
            f"with pharos stop {name} --address http://HEAD:8265"
        )
    if not holder.pid:
        raise StorageError(f"name={name} is only just beginning. Try again in a moment.")
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has ended by itself meanwhile
    except PermissionError as error:
        raise StorageError(
            f"name={name} is run by process {holder.pid} of another user, who alone can stop it."
        ) from error


def wait_until_free(sweep: LocalSweep, *, sleep: Callable[[float], None] = time.sleep) -> LocalSweep:
    """The sweep once no process runs it. Raises StorageError where one still does after STOP_PATIENCE_S."""
    deadline_s = time.monotonic() + STOP_PATIENCE_S
    while (holder := lock_holder(sweep.paths)) is not None:
        if time.monotonic() > deadline_s:
            raise StorageError(
                f"name={sweep.paths.sweep} has not ended {STOP_PATIENCE_S} s after it was asked to. "
                f"kill -9 {holder.pid} ends it without order; it can be resumed all the same."
            )
        sleep(POLL_S)
    return local_sweep(sweep.paths.sweep, sweep.paths.storage)


def spec_in_log(sweep: LocalSweep, tracking_uri: str | None) -> tuple[SweepSpec, Path]:
    """The spec that a sweep began with, last, and the directory that its relative paths are relative to.

    Raises StorageError where the log does not say enough to run it again.
    """
    started = None
    for event in log_of(sweep.paths.root).read():
        started = event if isinstance(event, SweepStarted) else started
    again = "Give its file again: pharos sweep SPEC --storage " + typed_storage(sweep.paths.storage)
    if started is None or not started.root:
        raise StorageError(f"name={sweep.paths.sweep}: its log does not say where its file was. {again}")
    spec = SweepSpec.model_validate(started.spec).model_copy(update={"storage": typed_storage(sweep.paths.storage)})
    if tracking_uri is not None:
        spec = spec.model_copy(update={"tracking": spec.tracking.model_copy(update={"uri": tracking_uri})})
    elif "***" in (spec.tracking.uri or ""):
        raise StorageError(
            f"name={sweep.paths.sweep}: the password of tracking.uri={spec.tracking.uri} is in no log. "
            "Give the whole URI with --tracking-uri."
        )
    fetch_folder(submitted(sweep.paths))
    roots = (Path(started.root), submitted(sweep.paths))
    root = next((place for place in roots if place.is_dir()), None)
    if root is None:
        raise StorageError(
            f"name={sweep.paths.sweep}: the directory of its file, {started.root}, is not there any more. {again}"
        )
    return spec, root
