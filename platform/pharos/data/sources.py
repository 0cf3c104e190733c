"""Finds what data.train, data.eval and data.test name: files, directories, globs, URIs, datasets of the hub.

Nothing is read here but what a digest needs. How files are read stands in `readers.py`.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pharos.data import docker_commands, hub
from pharos.data.formats import column_mistakes, hint
from pharos.data.storage import READ_ERRORS, find_remote, is_uri, open_raw, plain_suffix
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec, WeightedSource

BUILTIN = "builtin:docker-commands"
SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".tsv", ".conll", ".arrow")
"""Of the files that a directory is searched for, each also with .gz or .zst; a file named by itself may have any."""
CONVENTION: Mapping[Split, str] = {"train": "train", "eval": "dev", "test": "test"}
"""Names of the splits in a directory as PaddleNLP's scripts expect it: train.json and dev.json, or train/ and dev/."""
DIGEST_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """name: as messages show it. location: a path, a URI or a hub id. part: its place in a list of mixed sources.

    format, columns: data.format and data.columns, by which its rows are read.
    """

    name: str
    location: str
    part: int = 0
    format: str = "auto"
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one split is read from; without files it is the built-in rows.

    weights: of the parts that are mixed, none where they are not. notes: what a person should know of the choice.
    """

    split: Split
    files: tuple[SourceFile, ...]
    parts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """files by name; others: those of a directory laid out as PaddleNLP's that belong to eval and test."""

    files: dict[str, str] = field(default_factory=dict)
    others: dict[Split, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, more: _Found) -> None:
        self.files |= more.files
        self.notes += more.notes
        for split, files in more.others.items():
            self.others[split] = self.others.get(split, {}) | files


def find_sources(spec: DataSpec, *, root: Path) -> dict[Split, Source]:
    """What the spec names for each split; a split that it does not name is left out.

    `root` is the directory of the spec file. The built-in rows given as train bring their own eval and test, and so
    does a directory of train.json and dev.json. Raises DataError listing every name that leads to no file.
    """
    mistakes = column_mistakes(spec.format, spec.columns)
    if spec.train == BUILTIN:
        sources = {split: Source(split=split, files=()) for split in CONVENTION}
        others: dict[Split, dict[str, str]] = {}
    else:
        source, others = _train_source(spec.train, root, mistakes)
        sources = {"train": source}
    named: dict[Split, str | list[str] | None] = {"eval": spec.eval, "test": spec.test}
    for split, value in named.items():
        if value is not None:
            found = _find_all(value, f"data.{split}", root, mistakes)
            unused = [f"{', '.join(others[split])} is not read, since data.{split} is given"] if split in others else []
            sources[split] = Source(split=split, files=_files(found.files), notes=(*found.notes, *unused))
        elif split in others:
            note = f"data.{split} is {', '.join(others[split])}, which lies beside the training rows"
            sources[split] = Source(split=split, files=_files(others[split]), notes=(note,))
    if mistakes:
        raise DataError("\n".join(mistakes))
    return {split: _read_as(source, spec) for split, source in sources.items()}


def files_of(name: str, *, root: Path, key: str) -> list[Path]:
    """The local files that one name means, those for other splits that lie beside them included. Raises DataError."""
    mistakes: list[str] = []
    found = _find(name, key, root, mistakes)
    if mistakes:
        raise DataError("\n".join(mistakes))
    locations = [found.files, *found.others.values()]
    return sorted({Path(location) for files in locations for location in files.values()})


def key_of(spec: DataSpec, split: Split) -> str:
    """The field that names a split's rows, as messages begin with it."""
    named = getattr(spec, split)
    return f"data.{split}" if named is None else f"data.{split}={named}"


def content_digest(source: Source) -> str:
    """SHA-256 of the names and contents of a source's files, without their directories. Raises DataError."""
    if not source.files:
        return hashlib.sha256(json.dumps(docker_commands.rows(source.split)).encode()).hexdigest()
    digest = hashlib.sha256(json.dumps(source.weights).encode() if source.weights else b"")
    for file in source.files:
        if hub.is_hub_id(file.location):
            content = hub.content_digest(file.location, f"data.{source.split}")
        else:
            content = _digest_of_bytes(file, source.split)
        part = f"{file.part}\0" if source.weights else ""
        digest.update(f"{part}{Path(file.name).name}\0{content}\n".encode())
    return digest.hexdigest()


def _read_as(source: Source, spec: DataSpec) -> Source:
    files = (replace(file, format=spec.format, columns=spec.columns) for file in source.files)
    return replace(source, files=tuple(files))


def _train_source(
    train: str | list[str] | list[WeightedSource], root: Path, mistakes: list[str]
) -> tuple[Source, dict[Split, dict[str, str]]]:
    """The source of data.train, and the files that stand beside it for eval and test."""
    if isinstance(train, str) or not train or not isinstance(train[0], WeightedSource):
        found = _find_all(train, "data.train", root, mistakes)  # type: ignore[arg-type]
        return Source(split="train", files=_files(found.files), notes=tuple(found.notes)), found.others
    mixed = [source for source in train if isinstance(source, WeightedSource)]
    files: list[SourceFile] = []
    every = _Found()
    for part, source in enumerate(mixed):
        found = _find_all(source.path, f"data.train[{part}].path", root, mistakes)
        files += _files(found.files, part)
        every.add(found)
    names = tuple(s.path if isinstance(s.path, str) else ", ".join(s.path) for s in mixed)
    weights = tuple(source.weight for source in mixed)
    notes = tuple(every.notes)
    return Source(split="train", files=tuple(files), parts=names, weights=weights, notes=notes), every.others


def _files(found: Mapping[str, str], part: int = 0) -> tuple[SourceFile, ...]:
    return tuple(SourceFile(name=name, location=location, part=part) for name, location in found.items())


def _find_all(value: str | list[str], key: str, root: Path, mistakes: list[str]) -> _Found:
    every = _Found()
    for name in [value] if isinstance(value, str) else value:
        every.add(_find(name, key, root, mistakes))
    if value == []:
        mistakes.append(f"{key}=[] names no file.")
    return every


def _find(name: str, key: str, root: Path, mistakes: list[str]) -> _Found:
    """The files that one name means: itself, what a directory holds, or what a glob matches, in order of names."""
    path = root / name.removeprefix("file://")
    if name.startswith("builtin:"):
        if name == BUILTIN:
            mistakes.append(f"{key}: {BUILTIN} cannot stand in a list with files. Give it alone.")
        else:
            mistakes.append(f"{key}={name!r} is not built in. {BUILTIN} is.")
    elif hub.is_hub_id(name):
        mistake = hub.id_mistake(name)
        if mistake is None:
            return _Found(files={name: name})
        mistakes.append(f"{key}={name!r}: {mistake}")
    elif is_uri(name) and not name.startswith("file://"):
        return _find_uri(name, key, mistakes)
    elif path.is_file():
        return _Found(files={name: str(path)})
    elif path.is_dir():
        return _find_in_directory(name, path, key, mistakes)
    elif glob.has_magic(name):
        pattern = name.removeprefix("file://")
        matches = sorted(
            match for match in glob.glob(pattern, root_dir=root, recursive=True) if (root / match).is_file()
        )
        if matches:
            return _Found(files={match: str(root / match) for match in matches})
        mistakes.append(f"{key}={name!r} matches no file in {root}.")
    else:
        folder = path.parent
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        where = f"no such file in {folder}" if folder.is_dir() else f"there is no directory {folder}"
        mistakes.append(f"{key}={name!r}: {where}.{hint(path.name, names)}")
    return _Found()


def _find_uri(name: str, key: str, mistakes: list[str]) -> _Found:
    try:
        locations = find_remote(name, SUFFIXES)
    except ImportError as error:
        mistakes.append(f"{key}={name!r} cannot be reached: {error}. Install it, or copy the files here.")
        return _Found()
    except READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        mistakes.append(f"{key}={name!r} cannot be reached: {reason}. Check the address and the credentials.")
        return _Found()
    if not locations:
        mistakes.append(f"{key}={name!r} leads to no file with one of the suffixes {', '.join(SUFFIXES)}.")
    return _Found(files={location: location for location in locations})


def _find_in_directory(name: str, path: Path, key: str, mistakes: list[str]) -> _Found:
    """The data files of a directory; of one with train.json and dev.json, or train/ and dev/, those of each split."""
    files = [file for file in sorted(path.iterdir()) if plain_suffix(file.name) in SUFFIXES and file.is_file()]
    if any(file.name == "state.json" for file in files) and any(file.suffix == ".arrow" for file in files):
        files = [file for file in files if file.suffix == ".arrow"]  # what `datasets` saved; the rest describes it
    by_split = {split: _files_of_split(path, word, files) for split, word in CONVENTION.items()}
    shown = {file: str(Path(name.removeprefix("file://")) / file.relative_to(path)) for file in files}
    if key.startswith("data.train") and by_split["train"] and by_split["eval"]:
        shown |= {file: str(Path(name) / file.relative_to(path)) for part in by_split.values() for file in part}
        rest = [shown[file] for file in files if not any(file in part for part in by_split.values())]
        named = {split: {shown[file]: str(file) for file in part} for split, part in by_split.items() if part}
        notes = [f"{', '.join(rest)} is not read: beside train and dev files only those and test files are"]
        return _Found(
            files=named["train"],
            others={split: part for split, part in named.items() if split != "train"},
            notes=notes if rest else [],
        )
    if not files:
        mistakes.append(f"{key}={name!r}: the directory {path} holds no file of {', '.join(SUFFIXES)}.")
    return _Found(files={shown[file]: str(file) for file in files})


def _files_of_split(path: Path, word: str, files: list[Path]) -> list[Path]:
    folder = path / word
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    alone = [file for file in files if file.name.lower().partition(".")[0] == word]
    return alone + [file for file in inside if plain_suffix(file.name) in SUFFIXES and file.is_file()]


def _digest_of_bytes(file: SourceFile, split: Split) -> str:
    digest = hashlib.sha256()
    try:
        with open_raw(file.location) as stream:
            while block := stream.read(DIGEST_BLOCK_BYTES):
                digest.update(block)
    except READ_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.{split}: {file.location} cannot be read: {reason}.") from error
    return digest.hexdigest()
