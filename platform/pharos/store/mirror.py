"""The local mirror of an object store: a directory in the user's cache in which its files are read and written.

Nothing in a mirror is the only copy: what is written there goes to the store too, and what is missing is fetched. Every
function takes a path, and one outside of any mirror is a plain local path, for which there is nothing to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pharos.errors import StorageError
from pharos.folders import user_cache
from pharos.store.uris import checked_storage, is_store, joined

if TYPE_CHECKING:
    from pharos.store.objects import ObjectStore

MARK = ".pharos-mirror.json"
"""What makes a directory a mirror; says of which storage."""
FOLDER = "pharos-folder.json"
"""The last object of a folder at the store: its files and their sizes. A folder without it is not there."""
MANIFEST = "manifest.json"
"""The same of a checkpoint, which has one anyway."""
NUM_TRANSFERS = 8
"""Objects that are carried at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """A path of a mirror. uri: of the storage; root: of the mirror; name: of the object or folder at the store.

    identity: of this mirror alone, the same as long as it is there.
    """

    uri: str
    root: Path
    name: str
    identity: str

    @property
    def store(self) -> ObjectStore:
        from pharos.store.objects import open_store  # it brings pyarrow, which a local storage does without

        return open_store(self.uri)

    @property
    def shown(self) -> str:
        return joined(self.uri, self.name) if self.name else self.uri


def local_storage(storage: str | Path) -> Path:
    """The directory in which a storage is worked with, absolute: itself, or its mirror, made here.

    The store is not asked. Raises StorageError for what is neither a path nor the URI of a store.
    """
    text = checked_storage(str(storage))
    if not is_store(text):
        return Path(text).absolute()
    root = user_cache() / "stores" / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (root / MARK).is_file():
        try:
            root.mkdir(parents=True, exist_ok=True)
            write_whole(root / MARK, json.dumps({"storage": text, "identity": uuid4().hex}).encode())
        except OSError as error:
            raise StorageError(
                f"storage={text}: its files are fetched to {root}, which cannot be written ({error.strerror}). Name "
                "a directory of yours in PHAROS_CACHE."
            ) from error
    return root


def mirrored(path: Path) -> Mirrored | None:
    """Where a path lies at a store; none for one that is no mirror's."""
    for root in (path, *path.parents):
        if (root / MARK).is_file():
            mark = json.loads((root / MARK).read_text(encoding="utf-8"))
            name = path.relative_to(root).as_posix()
            return Mirrored(uri=mark["storage"], root=root, name="" if name == "." else name, identity=mark["identity"])
    return None


def typed_storage(path: Path) -> str:
    """What a person types to name a storage: its URI where `path` is a mirror."""
    place = mirrored(path.absolute())
    return str(path) if place is None else place.shown


def write_whole(path: Path, content: bytes) -> None:
    """A file of a mirror appears whole, over one that is there; flushed by nobody, since it can be fetched again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def push_file(path: Path) -> None:
    """Bring a file of a mirror to the store, over what is there."""
    if (place := mirrored(path)) is not None:
        place.store.upload(path, place.name)


def push_folder(path: Path, *, files: Iterable[Path] | None = None, anew: bool = False) -> None:
    """Bring a folder of a mirror to the store, unless it is whole there already.

    files: which of it; none: all. anew: replace one that is there, since its name does not say what it holds.
    """
    place = mirrored(path)
    if place is None:
        return
    if not anew and place.store.modified_s(f"{place.name}/{FOLDER}") is not None:
        return
    wanted = sorted(files if files is not None else (file for file in path.rglob("*") if file.is_file()))
    named = {file.relative_to(path).as_posix(): file for file in wanted}
    listing = {"files": {name: {"bytes": file.stat().st_size} for name, file in named.items()}}
    upload_folder(place.store, place.name, named, marker=FOLDER, content=json.dumps(listing, indent=2).encode())


def upload_folder(store: ObjectStore, folder: str, files: dict[str, Path], *, marker: str, content: bytes) -> None:
    """Upload files, by their names in the folder, and the marker that makes it whole after all of them."""
    store.delete(f"{folder}/{marker}")  # while it is replaced it is not there
    with ThreadPoolExecutor(NUM_TRANSFERS) as pool:
        list(pool.map(lambda name: store.upload(files[name], f"{folder}/{name}"), files))
    store.write(f"{folder}/{marker}", content)


def fetch_folder(path: Path) -> bool:
    """Have a folder of a mirror whose name says what it holds: fetched once, whole. Whether it is there now.

    Several processes of a machine may ask at once: one fetches, the others wait for it.
    """
    if path.is_dir():
        return True
    place = mirrored(path)
    if place is None:
        return False
    with _locked(path):
        if path.is_dir():
            return True
        listing = place.store.read(f"{place.name}/{FOLDER}")
        if listing is None:
            return False
        _download_folder(place.store, place.name, path, json.loads(listing)["files"])
    return True


def fetched_file(path: Path) -> Path:
    """A file of a mirror, fetched without its folder: to another path then; and `path` itself where there is none."""
    place = mirrored(path)
    if place is None or path.is_file():
        return path
    content = place.store.read(place.name)
    if content is None:
        return path
    alone = place.root / ".files" / place.name
    write_whole(alone, content)
    return alone


def fetch_checkpoint(path: Path) -> bool:
    """Have a checkpoint as it is at the store now. Whether it is there; a path outside of a mirror is as it is."""
    place = mirrored(path)
    if place is None:
        return path.is_dir()
    with _locked(path):
        manifest = place.store.read(f"{place.name}/{MANIFEST}")
        here = path / MANIFEST
        if manifest is not None and here.is_file() and here.read_bytes() == manifest:
            return True
        shutil.rmtree(path, ignore_errors=True)
        if manifest is None:
            return False
        download_checkpoint(place.store, place.name, path, manifest)
    return True


def download_checkpoint(store: ObjectStore, folder: str, path: Path, manifest: bytes) -> None:
    """Fetch the files that a checkpoint's manifest names, and the manifest itself beside them."""
    _download_folder(store, folder, path, json.loads(manifest)["files"], also={MANIFEST: manifest})


def remove_folder(path: Path) -> None:
    """Delete a folder here and at the store."""
    if (place := mirrored(path)) is not None:
        for marker in (MANIFEST, FOLDER):
            place.store.delete(f"{place.name}/{marker}")
        place.store.delete_folder(place.name)
    shutil.rmtree(path, ignore_errors=True)


def folders_of(path: Path) -> list[str]:
    """Names of the folders in a directory, those at the store among them; empty where there is no such directory."""
    here = {entry.name for entry in path.iterdir() if entry.is_dir()} if path.is_dir() else set()
    place = mirrored(path)
    return sorted(here if place is None else here | set(place.store.folders(place.name)))


def fetch_segments(directory: Path) -> None:
    """Have the numbered segments of a log exactly as they are at the store.

    A mirror that was left by another log of this name, since begun anew, loses all that it has of that.
    """
    place = mirrored(directory)
    if place is None:
        return
    # Local names first: an appender writes to the store before it writes here, so none of these can be too new.
    here = {file.name for file in directory.glob("*.jsonl")}
    there = place.store.names(place.name)
    segments = {name for name in there if name.endswith(".jsonl") and "/" not in name}
    first = min(segments | here, default=None)
    if first in here and (first not in segments or not _is_same(place, directory / str(first))):
        forget(directory.parent)
        here = set()
    for name in here - segments:
        (directory / name).unlink(missing_ok=True)
    missing = sorted(segments - here)

    def fetch(name: str) -> None:
        write_whole(directory / name, place.store.read(f"{place.name}/{name}") or b"")

    with ThreadPoolExecutor(NUM_TRANSFERS) as pool:
        list(pool.map(fetch, missing))


def forget(folder: Path) -> None:
    """Empty a folder of a mirror but for the file by which it is locked."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _is_same(place: Mirrored, segment: Path) -> bool:
    return place.store.read(f"{place.name}/{segment.name}") == segment.read_bytes()


def _download_folder(
    store: ObjectStore,
    folder: str,
    path: Path,
    files: dict[str, dict[str, Any]],
    *,
    also: dict[str, bytes] | None = None,
) -> None:
    """Fill a folder beside and rename it, so that nobody sees half of it. Raises StorageError at a size that is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))

    def fetch(name: str) -> None:
        target = unfinished / name
        target.parent.mkdir(parents=True, exist_ok=True)
        store.download(f"{folder}/{name}", target)
        if target.stat().st_size != files[name]["bytes"]:
            raise StorageError(
                f"storage={store.shown}: {folder}/{name} has {target.stat().st_size} bytes, and {files[name]['bytes']} "
                "were written. Delete that folder at the store: it is made again, or gone on from an earlier one."
            )

    try:
        unfinished.chmod(0o755)
        with ThreadPoolExecutor(NUM_TRANSFERS) as pool:
            list(pool.map(fetch, files))
        for name, content in (also or {}).items():
            (unfinished / name).write_bytes(content)
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep the other processes of this machine from fetching the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
