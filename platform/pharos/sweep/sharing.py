"""What the nodes of a sweep share through an object store: base and rows, brought there before the first pool.

On a local or shared path every node has them anyway, and nothing here does anything.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pharos.errors import StorageError
from pharos.plan.pool import PoolSettings
from pharos.store.mirror import fetch_folder, local_storage, mirrored, push_folder
from pharos.store.uris import is_store, parent_and_name

if TYPE_CHECKING:
    from pharos.sweep.staging import Staged

BASE_FILES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".py", ".md")
"""Endings of what a base may consist of. Pickles and the checkpoints of a training stay where they are."""
SEEN = (
    "Every node must see it: name a directory that all of them share, or s3://bucket/prefix or gs://bucket/prefix, "
    "which every node may read and write."
)


def shared(path: Path) -> str:
    """A path as the workers of all nodes are told it: of a mirror, the URI."""
    place = mirrored(path)
    return str(path) if place is None else place.shown


def linked_base(base_dir: Path, cache: Path) -> Path:
    """A name for the base below the cache of a mirror: a link to it, named by what its files hold.

    Only the driver has the link; the other nodes fetch the files under this name.
    """
    digest = hashlib.sha256()
    for file in base_files(base_dir):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name} {content}\n".encode())
    link = cache / f"base-{digest.hexdigest()[:16]}"
    if link.is_symlink() and link.resolve() != base_dir.resolve():
        link.unlink()
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(base_dir.resolve())
        os.replace(temporary, link)
    return link


def base_files(base_dir: Path) -> list[Path]:
    return sorted(file for file in base_dir.iterdir() if file.is_file() and file.suffix in BASE_FILES)


def share_inputs(staged: Staged, progress: Callable[[str], None]) -> None:
    """Bring rows and base to the store, unless a sweep has done so before."""
    place = mirrored(staged.storage)
    if place is None:
        return
    progress(f"bringing rows and base to {place.shown}, where they are not there yet")
    push_folder(staged.data.directory)
    base = staged.shared_base or staged.base_dir
    push_folder(base, files=base_files(base))


def settings_here(settings: PoolSettings) -> PoolSettings:
    """On a worker's node: the settings with base and rows as local paths, fetched once for all workers of the node.

    Raises StorageError, with the remedy, where this node does not see the storage; of a node that joins a cluster while
    a sweep runs nobody has asked that before.
    """
    return replace(settings, base_dir=_here(settings.base_dir), data_dir=_here(settings.data_dir))


def _here(folder: str) -> str:
    if not is_store(folder):
        if not Path(folder).is_dir():
            raise StorageError(f"{os.uname().nodename}: {folder} is not there on this node. {SEEN}")
        return folder
    cache, name = parent_and_name(folder)
    storage, _ = parent_and_name(cache)
    path = local_storage(storage) / "cache" / name
    if not fetch_folder(path):
        raise StorageError(f"{os.uname().nodename}: {folder} is not at the store, or not whole. Start the sweep again.")
    return str(path)
