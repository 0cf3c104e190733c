"""Who works on a folder of a store: one object that its holder writes again and again. Two drivers never share a sweep.

Stores have no locks, and not all of them can refuse to write over an object: who takes the lock writes, waits a little,
and reads whether it is still theirs. Ages are measured by the store's own clock.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pharos.errors import StorageError
from pharos.store.mirror import Mirrored, mirrored

LOCK = "lock.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """beat_s: between two signs of life. stale_s: a holder without one is gone. settle_s: for two who begin at once."""

    beat_s: float = 20.0
    stale_s: float = 90.0
    settle_s: float = 1.0


@contextmanager
def store_lock(folder: Path, *, patience: Patience = Patience()) -> Iterator[None]:
    """Hold a folder of a mirror at its store. Raises StorageError while another holds it; of a local path says nothing.

    A lock whose holder has given no sign of life for `stale_s` is taken over, and so is one of this same mirror: its
    own lock keeps the processes of this machine apart, so that holder is gone.
    """
    place = mirrored(folder)
    if place is None:
        yield
        return
    owner = uuid4().hex
    _refuse_held(place, owner, patience)
    _write(place, owner)
    ended = threading.Event()
    ended.wait(patience.settle_s)
    now = _holder(place)
    if now is None or now["owner"] != owner:
        raise _held(place, now or {}, "it began at the same moment")
    beats = threading.Thread(target=_beat, args=(place, owner, ended, patience), name="pharos-store-lock", daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        _release(place, owner)


def lock_host(folder: Path) -> str | None:
    """The machine that holds a folder of a mirror at its store, as its lock there says; none where there is no lock.

    One that died without a word still stands there, until another takes over.
    """
    place = mirrored(folder)
    holder = None if place is None else _holder(place)
    return None if holder is None else holder.get("host", "unknown")


def _refuse_held(place: Mirrored, owner: str, patience: Patience) -> None:
    holder = _holder(place)
    if holder is None or holder.get("mirror") == place.identity:
        return
    silent_s = _silent_s(place, owner)
    if silent_s <= patience.stale_s:
        left_s = patience.stale_s - silent_s
        raise _held(
            place,
            holder,
            f"its last sign of life is {silent_s:.0f} s old; if it has died, this command works in {left_s:.0f} s",
        )


def _held(place: Mirrored, holder: dict[str, str], detail: str) -> StorageError:
    return StorageError(
        f"name={place.name} is being run by another process, on host {holder.get('host', 'unknown')}, in {place.uri} "
        f"({detail}). Wait for it, or give this sweep another name."
    )


def _holder(place: Mirrored) -> dict[str, str] | None:
    content = place.store.read(f"{place.name}/{LOCK}")
    try:
        return None if content is None else dict(json.loads(content))
    except ValueError:
        return {}


def _silent_s(place: Mirrored, owner: str) -> float:
    """Seconds since the holder's last sign of life, by the store's clock: that of an object written now."""
    probe = f"{place.name}/.clock-{owner}"
    place.store.write(probe, b"now")
    now_s, then_s = place.store.modified_s(probe), place.store.modified_s(f"{place.name}/{LOCK}")
    place.store.delete(probe)
    return 0.0 if now_s is None or then_s is None else max(0.0, now_s - then_s)


def _write(place: Mirrored, owner: str) -> None:
    content = {"owner": owner, "mirror": place.identity, "host": socket.gethostname()}
    place.store.write(f"{place.name}/{LOCK}", json.dumps(content).encode())


def _beat(place: Mirrored, owner: str, ended: threading.Event, patience: Patience) -> None:
    """Sign of life until the end. Where another has taken over, the log's next segment will be refused: see there."""
    while not ended.wait(patience.beat_s):
        try:
            now = _holder(place)
            if now is not None and now.get("owner") != owner:
                return
            _write(place, owner)
        except StorageError:
            continue  # it is away for now; the next sign of life may reach it


def _release(place: Mirrored, owner: str) -> None:
    try:
        now = _holder(place)
        if now is not None and now.get("owner") == owner:
            place.store.delete(f"{place.name}/{LOCK}")
    except StorageError:
        return  # it goes stale by itself, and what ended the sweep is said already
