"""Where a sweep keeps its state below its storage, and the lock that keeps two drivers apart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pharos.errors import StorageError


@dataclass(frozen=True, slots=True)
class SweepPaths:
    """All paths of one sweep; absolute, since Ray's workers change their directory."""

    storage: Path
    sweep: str

    @property
    def root(self) -> Path:
        return self.storage / self.sweep

    @property
    def events(self) -> Path:
        return self.root / "events"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def ray(self) -> Path:
        return self.root / "ray"

    @property
    def merged(self) -> Path:
        return self.root / "merged"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def cache(self) -> Path:
        """Prepared data and built-in bases, shared by the sweeps of one storage."""
        return self.storage / "cache"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.storage / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        return self.storage / "mlartifacts"


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


@contextmanager
def sweep_lock(paths: SweepPaths) -> Iterator[None]:
    """Hold the sweep for this process. Raises StorageError when another driver has it."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with (paths.root / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"name={paths.sweep} is being run by another process in {paths.storage}. "
                "Wait for it, or give this sweep another name."
            ) from error
        yield
