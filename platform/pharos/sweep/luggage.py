"""What must travel with a sweep to another machine: its file, and the small files that it names by relative paths.

Absolute paths and URIs are taken as what the cluster itself sees, and stay. Nothing here knows Ray.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pharos.data.hub import is_hub_id
from pharos.data.sources import files_of
from pharos.data.storage import is_uri
from pharos.data.template import TOKENIZER
from pharos.errors import BaseModelError, DataError
from pharos.folders import write_folder
from pharos.model.base import HUB_ID
from pharos.spec.model import DataSpec, SweepSpec, WeightedSource
from pharos.spec.rules import BUILTIN_TEMPLATES

MAX_BYTES = 100 * 10**6
"""Ray's dashboard takes no request beyond 100 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Luggage:
    """Files by the place that they get in a folder, which keeps how they lie to each other. spec: the sweep file's."""

    spec: PurePosixPath
    files: dict[PurePosixPath, Path]

    @property
    def num_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files.values())

    def copy_to(self, folder: Path) -> None:
        """Put all files into a folder, which is made where it is missing."""
        for place, file in self.files.items():
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def keep_in(self, folder: Path) -> None:
        """Make a folder hold these files and no others, in the place of what it held before."""
        if not self._is_in(folder):
            shutil.rmtree(folder, ignore_errors=True)
            write_folder(folder, self.copy_to, is_whole=Path.is_dir)

    def _is_in(self, folder: Path) -> bool:
        held = {PurePosixPath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        return held == self.files.keys() and all(
            (folder / place).read_bytes() == file.read_bytes() for place, file in self.files.items()
        )


def pack(spec: SweepSpec, path: Path) -> Luggage:
    """What travels with a sweep whose file is `path`.

    Raises DataError for files that are not there or too large to travel, BaseModelError for a base that lies in a
    relative directory.
    """
    root = path.absolute().parent
    _refuse_base(spec, root)
    files = [Path(os.path.normpath(file)) for file in (path.absolute(), *_named(spec.data, root))]
    top = Path(os.path.commonpath([str(file.parent) for file in files]))
    luggage = Luggage(
        spec=PurePosixPath(files[0].relative_to(top)),
        files={PurePosixPath(file.relative_to(top)): file for file in files},
    )
    if luggage.num_bytes > MAX_BYTES:
        largest = max(files, key=lambda file: file.stat().st_size)
        raise DataError(
            f"data: the files to send with the job have {luggage.num_bytes / 1e6:,.0f} MB, and "
            f"{MAX_BYTES / 1e6:.0f} MB may travel; the largest, {largest}, has {largest.stat().st_size / 1e6:,.0f} MB. "
            "Put them where the cluster reads them, and name them by a URI (s3://, gs://, ...) or an absolute path."
        )
    return luggage


def _refuse_base(spec: SweepSpec, root: Path) -> None:
    """A base does not travel: it is a built-in, an id of the hub, or a directory that the cluster sees."""
    is_absolute = Path(spec.base).is_absolute() or spec.base.startswith("~")
    if spec.base.startswith("builtin:") or is_uri(spec.base) or is_absolute:
        return
    if (root / spec.base).is_dir() or not HUB_ID.fullmatch(spec.base):
        raise BaseModelError(
            f"base={spec.base} is a directory beside the sweep file, and a base does not travel with a job. Put it "
            "where every node of the cluster sees it and give that path, absolute; or name a model of the hub."
        )


def _named(data: DataSpec, root: Path) -> Iterator[Path]:
    """The files that the spec names by relative paths. Raises DataError where a name leads to none."""
    for key, name in _names(data):
        stays = name.startswith(("builtin:", "~")) or is_hub_id(name) or is_uri(name) or Path(name).is_absolute()
        if not stays:
            yield from files_of(name, root=root, key=key)
    template = data.template
    if template not in ("auto", TOKENIZER, *BUILTIN_TEMPLATES) and not Path(template).expanduser().is_absolute():
        if not (root / template).is_file():
            raise DataError(
                f"data.template={template}: there is no file {root / template}. Name a built-in one "
                f"({', '.join(BUILTIN_TEMPLATES)}) or the path of a Jinja file."
            )
        yield root / template


def _names(data: DataSpec) -> Iterator[tuple[str, str]]:
    for split in ("train", "eval", "test"):
        value = getattr(data, split)
        for source in value if isinstance(value, list) else [] if value is None else [value]:
            names = source.path if isinstance(source, WeightedSource) else source
            for name in [names] if isinstance(names, str) else names:
                yield f"data.{split}", name
