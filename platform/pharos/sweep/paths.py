"""Whether a storage can be written, and the lock that keeps two drivers of one sweep apart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from pharos.errors import StorageError
from pharos.plan.paths import SweepPaths
from pharos.store.lock import store_lock
from pharos.store.mirror import mirrored, typed_storage
from pharos.store.objects import ObjectStore, in_time

__all__ = ["SweepPaths", "check_writable", "sweep_lock"]


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


@contextmanager
def sweep_lock(paths: SweepPaths) -> Iterator[None]:
    """Hold the sweep for this process, and at an object store for this machine.

    Raises StorageError when another driver has it.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    with (paths.root / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"name={paths.sweep} is being run by another process in {typed_storage(paths.storage)}. "
                "Wait for it, or give this sweep another name."
            ) from error
        with store_lock(paths.root):
            yield
