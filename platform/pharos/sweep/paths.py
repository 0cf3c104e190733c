"""Whether a storage can be written, and the lock that keeps two drivers of one sweep apart."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pharos.errors import StorageError
from pharos.plan.paths import SweepPaths

__all__ = ["Holder", "SweepPaths", "check_writable", "lock_holder", "sweep_lock"]


def check_writable(storage: Path) -> None:
    """Raise StorageError unless a file can be made in `storage`, which is created where it is missing."""
    probe = storage / f".probe-{os.getpid()}"
    try:
        storage.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"storage={storage} cannot be written: {error.strerror}. Name a directory of yours with --storage."
        ) from error


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that runs a sweep, as it has written itself into the sweep's lock."""

    pid: int
    host: str


@contextmanager
def sweep_lock(paths: SweepPaths) -> Iterator[None]:
    """Hold the sweep for this process, and write into the lock which one that is. Raises StorageError when held."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with _lock_file(paths).open("a+", encoding="utf-8") as handle:  # not "w": the holder's name must stay in it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"name={paths.sweep} is being run by another process in {paths.storage}. "
                f"Wait for it, stop it (pharos stop {paths.sweep}), or give this sweep another name."
            ) from error
        handle.truncate(0)
        json.dump(asdict(Holder(pid=os.getpid(), host=socket.gethostname())), handle)
        handle.flush()
        yield


def lock_holder(paths: SweepPaths) -> Holder | None:
    """Who runs the sweep now; none where nobody does. A process that was killed holds nothing any more."""
    try:
        with _lock_file(paths).open(encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Holder(**json.load(handle))
    except FileNotFoundError:
        return None
    except ValueError:  # it has just begun, and has not written itself down yet
        return Holder(pid=0, host="")
    return None


def _lock_file(paths: SweepPaths) -> Path:
    return paths.root / "lock"
