"""The event log: numbered, immutable files of JSON lines, the record of truth from which all else is rebuilt.

The desk alone appends; anyone may read. A segment is named by the sequence number of its first event and appears whole
or not at all: object stores cannot append, and a reader must never see half a line. In the mirror of such a store a
segment goes to the store first, and what is missing comes from there. Nothing here knows MLflow.
"""

from __future__ import annotations

import errno
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic_core import from_json

from pharos.errors import StorageError
from pharos.plan.events import Event, event_from_json, event_to_json
from pharos.store.mirror import Mirrored, fetch_segments, local_storage, mirrored, write_whole

NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links (many FUSE and object-store mounts) answer to os.link."""


class EventLog:
    """The events of one sweep, in `directory`, which the first append creates.

    It pickles: on another node a log at an object store has its mirror there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._next_sequence: int | None = None
        self._place = mirrored(directory.absolute())

    def __reduce__(self) -> tuple[Any, ...]:
        if self._place is None:
            return EventLog, (self.directory,)
        return _log_at_store, (self._place.uri, self._place.name)

    def next_sequence(self) -> int:
        """The number of the next event to append. Raises StorageError when the last segment is corrupt."""
        if self._next_sequence is None:
            fetch_segments(self.directory)
            segments = self._segments()
            last = list(_events_of(*segments[-1])) if segments else []
            self._next_sequence = last[-1].sequence + 1 if last else 0
        return self._next_sequence

    def append(self, events: Sequence[Event]) -> tuple[Event, ...]:
        """Write events as one new segment and return them as written: with their sequence numbers.

        They are on disk when this returns. Raises StorageError when they cannot be, or when another process has
        appended since this one last did: a sweep has one desk.
        """
        if not events:
            return ()
        first = self.next_sequence()
        written = tuple(replace(event, sequence=first + index) for index, event in enumerate(events))
        text = "".join(json.dumps(event_to_json(event)) + "\n" for event in written)
        path = self.directory / f"{first:06d}.jsonl"
        if self._place is None:
            _write_new_file(path, text)
        else:
            _write_at_store(self._place, path, text)
        self._next_sequence = first + len(written)
        return written

    def read(self, from_sequence: int = 0) -> Iterator[Event]:
        """Events from a sequence number on, in order.

        Raises StorageError, naming file and line, at a line that is no event and where a segment is missing.
        """
        fetch_segments(self.directory)
        segments = self._segments()
        start = max(bisect_right([first for first, _ in segments], from_sequence) - 1, 0)
        expected = segments[start][0] if start else 0
        for first, path in segments[start:]:
            if first != expected:
                raise StorageError(
                    f"{self.directory / f'{expected:06d}.jsonl'}: this segment of the event log is missing; the next "
                    f"one there is {path.name}. Restore it from a backup, or start the sweep under a new name."
                )
            for event in _events_of(first, path):
                expected = event.sequence + 1
                if event.sequence >= from_sequence:
                    yield event

    def _segments(self) -> list[tuple[int, Path]]:
        """(first sequence number, path) of each segment in order. Temporary files of a crash are no segments."""
        paths = self.directory.glob("*.jsonl")
        return sorted((int(path.stem), path) for path in paths if path.stem.isdecimal())


def _events_of(first: int, path: Path) -> Iterator[Event]:
    """The events of one segment, each checked to be the one that belongs on its line."""
    lines = path.read_bytes().splitlines()
    if not lines:
        raise _corrupt(path, 1, "the segment is empty")
    for index, line in enumerate(lines):
        try:
            # Four times as fast as json.loads, which a log of 1,000 trials takes a second of.
            event = event_from_json(from_json(line))
        except (ValueError, TypeError, AttributeError) as error:
            raise _corrupt(path, index + 1, str(error)) from error
        if event.sequence != first + index:
            raise _corrupt(path, index + 1, f"sequence={event.sequence} stands where {first + index} belongs")
        yield event


def _corrupt(path: Path, line_number: int, reason: str) -> StorageError:
    return StorageError(
        f"{path}:{line_number}: the event log is corrupt: {reason}. "
        "Restore this file from a backup, or start the sweep under a new name."
    )


def _log_at_store(uri: str, name: str) -> EventLog:
    return EventLog(local_storage(uri) / name)


def _write_at_store(place: Mirrored, path: Path, text: str) -> None:
    """To the store first, which is what counts; a crash before the mirror has it too loses nothing."""
    name = f"{place.name}/{path.name}"
    if place.store.modified_s(name) is not None:
        raise _appended_by_another(name)
    place.store.write(name, text.encode())
    write_whole(path, text.encode())


def _write_new_file(path: Path, text: str) -> None:
    """Make a file appear whole, flushed to disk, and never over one that is there."""
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        claimed = _claim_name(temporary, path)
        temporary.unlink(missing_ok=True)
        _flush_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"storage: {path} cannot be written: {error.strerror or error}. "
            "Give a directory that this user can write to and that has room left."
        ) from error
    if not claimed:
        raise _appended_by_another(path)


def _appended_by_another(segment: Path | str) -> StorageError:
    return StorageError(
        f"{segment}: another process appends to this event log. A sweep has one desk: "
        "wait for the other run of this sweep to end, or stop it, and start again."
    )


def _claim_name(temporary: Path, path: Path) -> bool:
    """Give the finished file its name, unless that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        if path.exists():
            return False
        temporary.rename(path)
    return True


def _flush_directory(directory: Path) -> None:
    """A new name survives a power cut only once its directory is flushed too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
