"""Finding a sweep by what a person calls it: the name under a storage, or the directory itself. Reads names alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pharos.errors import StorageError
from pharos.spec.fields import nearest
from pharos.store.mirror import fetch_segments, folders_of, mirrored, typed_storage
from pharos.track.event_log import EventLog

EVENTS = "events"
"""The part of a sweep's directory that makes it one."""
NUM_NAMED = 10
"""Sweeps that an error names at most."""


def find_sweep(name_or_path: str, storage: Path) -> Path:
    """The directory of a sweep: `storage`/name, or the path that was given.

    Raises StorageError where there is none, with the sweeps that there are.
    """
    for directory in (storage / name_or_path, Path(name_or_path)):
        fetch_segments(directory.absolute() / EVENTS)
        if _is_sweep(directory):
            return directory.absolute()
    if not storage.is_dir():
        reason = f"there is no storage {storage}"
        remedy = "Name the directory that holds the sweep with --storage."
    else:
        reason = f"no sweep of this name lies in {typed_storage(storage)}, and it is no sweep's directory"
        none = "That storage holds no sweep at all: name another one with --storage."
        remedy = which_sweep(name_or_path, sweeps_in(storage), none=none)
    raise StorageError(f"sweep={name_or_path}: {reason}. {remedy}")


def sweeps_in(storage: Path) -> list[str]:
    """Names of all sweeps below a storage, sorted; empty where there is no such directory."""
    if mirrored(storage.absolute()) is not None:
        return [name for name in folders_of(storage.absolute()) if EVENTS in folders_of(storage.absolute() / name)]
    return sorted(path.name for path in storage.iterdir() if _is_sweep(path)) if storage.is_dir() else []


def log_of(sweep: Path) -> EventLog:
    """The event log of a sweep's directory."""
    return EventLog(sweep / EVENTS)


def _is_sweep(directory: Path) -> bool:
    return any((directory / EVENTS).glob("*.jsonl"))


def which_sweep(name: str, there: Sequence[str], *, none: str) -> str:
    """What to type in the place of a name that no sweep has; none: what to say where there is no sweep at all."""
    if not there:
        return none
    if near := nearest(name, there):
        return f"Did you mean {near}?"
    more = f" and {len(there) - NUM_NAMED} more" if len(there) > NUM_NAMED else ""
    return f"There are: {', '.join(there[:NUM_NAMED])}{more}."
