"""Folders that are whole or not there: what is cached and shared is written so, whatever it holds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def ensure_folder(folder: Path, write: Callable[[Path], object]) -> Path:
    """The folder, written by `write` unless it is there; two processes may ask for it at once."""
    if not folder.is_dir():
        write_folder(folder, write, is_whole=Path.is_dir)
    return folder


def write_folder(folder: Path, write: Callable[[Path], object], *, is_whole: Callable[[Path], bool]) -> None:
    """Have `write` fill a folder beside, and rename it to `folder` when whole, so nobody sees half of it.

    Where two processes write it at once, the second to finish keeps the first one's. is_whole: whether what stands
    there already is such a folder; otherwise the OSError of the renaming passes through.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        write(unfinished)
        os.replace(unfinished, folder)
    except OSError:
        if not is_whole(folder):
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def user_cache() -> Path:
    """What this machine keeps between sweeps: $PHAROS_CACHE, else below the user's cache directory."""
    if (own := os.environ.get("PHAROS_CACHE")) is not None:
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")).absolute() / "pharos"
