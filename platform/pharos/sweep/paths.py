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
from uuid import uuid4

from pharos.errors import StorageError
from pharos.plan.paths import SweepPaths
from pharos.store.lock import lock_host, store_lock
from pharos.store.mirror import mirrored, typed_storage
from pharos.store.objects import ObjectStore, in_time


def check_writable(storage: Path) -> None:
    """Raise StorageError unless a file can be made in `storage`, which is created where it is missing.

    Of the mirror of an object store: unless the store answers, soon, and takes an object.
    """
    if (place := mirrored(storage)) is not None:
        place.store.check()
        in_time(lambda: _probe(place.store), f"storage={place.uri}")
        return
    probe = storage / f".probe-{os.getpid()}"
    try:
        storage.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"storage={storage} cannot be written: {error.strerror}. Name a directory of yours with --storage."
        ) from error


def _probe(store: ObjectStore) -> None:
    name = f".probe-{uuid4().hex}"
    store.write(name, b"")
    store.delete(name)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that runs a sweep, as it has written itself into the sweep's lock. pid: 0 where it has not."""

    pid: int
    host: str


@contextmanager
def sweep_lock(paths: SweepPaths) -> Iterator[None]:
    """Hold the sweep for this process, and at an object store for this machine; the lock says which process that is.

    Raises StorageError when another driver has it.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    with _lock_file(paths).open("a+", encoding="utf-8") as handle:  # not "w": the holder's name must stay in it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"name={paths.sweep} is being run by another process in {typed_storage(paths.storage)}. "
                f"Wait for it, stop it (pharos stop {paths.sweep}), or give this sweep another name."
            ) from error
        handle.truncate(0)
        json.dump(asdict(Holder(pid=os.getpid(), host=socket.gethostname())), handle)
        handle.flush()
        with store_lock(paths.root):
            yield


def lock_holder(paths: SweepPaths) -> Holder | None:
    """Who runs the sweep now; none where nobody does. A process of this machine that has died holds nothing."""
    try:
        with _lock_file(paths).open(encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Holder(**json.load(handle))
    except FileNotFoundError:
        pass
    except ValueError:  # it has just begun, and has not written itself down yet
        return Holder(pid=0, host=socket.gethostname())
    elsewhere = lock_host(paths.root)
    return None if elsewhere is None else Holder(pid=0, host=elsewhere)


def _lock_file(paths: SweepPaths) -> Path:
    return paths.root / "lock"
