"""Where the trials of a pool keep their checkpoints: a directory that every worker sees, or an object store.

At a store a checkpoint is its files and then its manifest; without the manifest there is none. Workers keep nothing on
their own disks: what they write goes up, and what they read comes down, into a directory of that moment.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pharos.errors import StorageError
from pharos.store.mirror import MANIFEST, NUM_TRANSFERS, download_checkpoint, upload_folder
from pharos.store.objects import ObjectStore, open_store
from pharos.store.uris import is_store, joined, without_options


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """trials: an absolute directory, or a URI; a checkpoint lies in trials/0007/step-000050."""

    trials: str

    @property
    def is_remote(self) -> bool:
        return is_store(self.trials)

    def called(self, number: int, name: str | None) -> str | None:
        """A checkpoint as reports and events name it; none is none."""
        if name is None:
            return None
        place = without_options(joined(self.trials, f"{number:04d}", name))
        return place if self.is_remote else str(Path(place))

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A directory to save checkpoints in, as 0007/step-000050. On leaving, they are where they belong.

        Raises StorageError where the store does not take them.
        """
        if not self.is_remote:
            yield Path(self.trials)
            return
        with tempfile.TemporaryDirectory(prefix="pharos-checkpoints-") as scratch:
            yield Path(scratch)
            saved = sorted(path.parent for path in Path(scratch).glob(f"*/*/{MANIFEST}"))
            with ThreadPoolExecutor(NUM_TRANSFERS) as pool:
                list(pool.map(self._upload, saved))

    @contextmanager
    def reading(self, checkpoint: str) -> Iterator[Path]:
        """A checkpoint by its name in a report, as a local directory.

        Raises StorageError where a store has none of this name, or only a part of it.
        """
        folder = "/".join(Path(checkpoint).parts[-2:])
        if not self.is_remote:
            moved = Path(self.trials, folder)  # a storage may be moved, and its sweeps with it
            yield moved if moved.is_dir() else Path(checkpoint)
            return
        manifest = self._store.read(f"{folder}/{MANIFEST}")
        if manifest is None:
            raise StorageError(
                f"{checkpoint}: no {MANIFEST} at the store, so this is no whole checkpoint. Put it back, or start the "
                "sweep under a new name."
            )
        with tempfile.TemporaryDirectory(prefix="pharos-checkpoint-") as scratch:
            directory = Path(scratch, *Path(folder).parts)
            download_checkpoint(self._store, folder, directory, manifest)
            yield directory

    def keep_only(self, kept: Mapping[int, Collection[str]]) -> None:
        """Delete other checkpoints of these trials than the ones to keep, and what a lost process left half-written."""
        keep = self._keep_at_store if self.is_remote else self._keep_here
        with ThreadPoolExecutor(NUM_TRANSFERS) as pool:
            list(pool.map(lambda number: keep(number, kept[number]), kept))

    @property
    def _store(self) -> ObjectStore:
        return open_store(self.trials)

    def _upload(self, directory: Path) -> None:
        files = {path.name: path for path in directory.iterdir() if path.name != MANIFEST}
        folder = f"{directory.parent.name}/{directory.name}"
        upload_folder(self._store, folder, files, marker=MANIFEST, content=(directory / MANIFEST).read_bytes())

    def _keep_here(self, number: int, names: Collection[str]) -> None:
        for path in Path(self.trials, f"{number:04d}").glob("*"):  # a trial at its end may be deleted meanwhile, whole
            if path.is_dir() and path.name.lstrip(".").startswith("step-") and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)

    def _keep_at_store(self, number: int, names: Collection[str]) -> None:
        folder = f"{number:04d}"
        for name in self._store.folders(folder):
            if name not in names:
                self._store.delete(f"{folder}/{name}/{MANIFEST}")
                self._store.delete_folder(f"{folder}/{name}")
