"""Finds the files that data.train, data.eval and data.test name, and reads their rows with every mistake located.

JSONL or one JSON array, in UTF-8. What a row means is in `formats/`; which split it falls into in `split.py`.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pharos.data import docker_commands
from pharos.data.formats import (
    Format,
    Origin,
    Row,
    column_mistakes,
    detect_format,
    hint,
    read_row,
    unknown_form,
    unused_keys,
)
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec

BUILTIN = "builtin:docker-commands"
MISTAKES_SHOWN = 20
BOM = b"\xef\xbb\xbf"

Item = tuple[Any, Origin]
"""The JSON value of a row, not looked at yet, and where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files of one split, or the built-in rows where there are none. `files` are (name to show, path).

    format, columns: data.format and data.columns, for reading the rows.
    """

    split: Split
    files: tuple[tuple[str, Path], ...]
    format: str = "auto"
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Rows in the order of the files, their forms and the forms' names, and what a person should know of them."""

    rows: tuple[Row, ...]
    forms: tuple[Format, ...]
    formats: tuple[str, ...]
    warnings: tuple[str, ...]


def find_sources(spec: DataSpec, *, root: Path) -> dict[Split, Source]:
    """What the spec names for each split; a split that it does not name is left out.

    `root` is the directory of the spec file. The built-in rows given as train bring their own eval and test.
    Raises DataError listing every name that leads to no file.
    """
    named: dict[Split, str | list[str] | None] = {"train": spec.train, "eval": spec.eval, "test": spec.test}
    if spec.train == BUILTIN:
        named = {split: value or BUILTIN for split, value in named.items()}
    mistakes = column_mistakes(spec.format, spec.columns)
    sources: dict[Split, Source] = {}
    for split, value in named.items():
        if value is None:
            continue
        files: dict[str, Path] = {}
        for name in [] if value == BUILTIN else [value] if isinstance(value, str) else value:
            files |= _find(name, f"data.{split}", root, mistakes)
        if value == []:
            mistakes.append(f"data.{split}=[] names no file.")
        sources[split] = Source(split=split, files=tuple(files.items()), format=spec.format, columns=spec.columns)
    raise_mistakes(mistakes)
    return sources


def content_digest(source: Source) -> str:
    """SHA-256 of the names and contents of a source's files. Raises DataError if one cannot be read."""
    if not source.files:
        return hashlib.sha256(json.dumps(docker_commands.rows(source.split)).encode()).hexdigest()
    digest = hashlib.sha256()
    for name, path in source.files:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"data.{source.split}: {path} cannot be read: {error.strerror}.") from error
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def load(source: Source, mistakes: list[str]) -> Loaded:
    """All rows of a source. What is wrong is appended to `mistakes`, each with file and row; see `raise_mistakes`."""
    streams = {name: _file_items(name, path, mistakes) for name, path in source.files}
    streams = streams or {BUILTIN: _builtin_items(source.split)}
    files = [_read(name, items, source, mistakes) for name, items in streams.items()]
    return Loaded(
        rows=tuple(row for file in files for row in file.rows),
        forms=tuple(form for file in files for form in file.forms),
        formats=tuple(dict.fromkeys(name for file in files for name in file.formats)),
        warnings=tuple(text for file in files for text in file.warnings),
    )


def raise_mistakes(mistakes: list[str]) -> None:
    """Raises one DataError with the first mistakes, one a line, and the count of the rest; nothing where none are."""
    if mistakes:
        more = len(mistakes) - MISTAKES_SHOWN
        rest = [f"... and {more:,} more mistakes like these."] if more > 0 else []
        raise DataError("\n".join(mistakes[:MISTAKES_SHOWN] + rest))


def _find(name: str, key: str, root: Path, mistakes: list[str]) -> dict[str, Path]:
    """The files that one name means: itself, what a directory holds, or what a glob matches, in order of names."""
    path = root / name
    if name.startswith("builtin:"):
        if name == BUILTIN:
            mistakes.append(f"{key}: {BUILTIN} cannot stand in a list with files. Give it alone.")
        else:
            mistakes.append(f"{key}={name!r} is not built in. {BUILTIN} is.")
    elif path.is_file():
        return {name: path}
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".jsonl", ".json"))
        if files:
            return {str(Path(name) / file.name): file for file in files}
        mistakes.append(f"{key}={name!r}: the directory {path} holds no .jsonl and no .json file.")
    elif glob.has_magic(name):
        matches = sorted(match for match in glob.glob(name, root_dir=root, recursive=True) if (root / match).is_file())
        if matches:
            return {match: root / match for match in matches}
        mistakes.append(f"{key}={name!r} matches no file in {root}.")
    else:
        folder = path.parent
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        where = f"no such file in {folder}" if folder.is_dir() else f"there is no directory {folder}"
        mistakes.append(f"{key}={name!r}: {where}.{hint(path.name, names)}")
    return {}


def _read(name: str, items: Iterator[Item], source: Source, mistakes: list[str]) -> Loaded:
    """The rows of one file, all of them in the form of the first, or in the one that the source names."""
    mistakes_before = len(mistakes)
    rows: list[Row] = []
    form: Format | None = None
    unused: Counter[str] = Counter()
    for item, origin in items:
        form = form or detect_format(item, name=source.format, columns=source.columns)
        if form is None:
            mistakes.append(f"{origin}: {unknown_form(item, source.columns)}")
            break
        row, wrong = read_row(item, form, origin)
        mistakes += [f"{origin}: {sentence}" for sentence in wrong]
        if row is not None:
            rows.append(row)
            unused.update(unused_keys(item, form))
    if form is None and len(mistakes) == mistakes_before:
        mistakes.append(f"{name}: the file holds no row. Give it rows, or leave it out.")
    return Loaded(
        rows=tuple(rows),
        forms=() if form is None else (form,),
        formats=() if form is None else (form.name,),
        warnings=tuple(f"{name}: {key!r} of {count:,} rows is not used" for key, count in unused.items()),
    )


def _builtin_items(split: Split) -> Iterator[Item]:
    for index, row in enumerate(docker_commands.rows(split)):
        yield row, Origin(file=BUILTIN, row=index, is_line=False)


def _file_items(name: str, path: Path, mistakes: list[str]) -> Iterator[Item]:
    """The rows of a file: an array if it begins with a bracket, else one JSON value a line."""
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(BOM).lstrip()
    yield from (_array_items if start.startswith(b"[") else _line_items)(name, path, mistakes)


def _line_items(name: str, path: Path, mistakes: list[str]) -> Iterator[Item]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decode(line, f"{name}:{number}", offset, mistakes)
            offset += len(line)
            if text is None:
                return
            if text.strip():
                value, error = _parse(text)
                if error is None:
                    yield value, Origin(file=name, row=number)
                else:
                    mistakes.append(f"{name}:{number}:{error.colno}: not JSON: {error.msg}. Write one object a line.")


def _array_items(name: str, path: Path, mistakes: list[str]) -> Iterator[Item]:
    text = _decode(path.read_bytes(), name, 0, mistakes)
    if text is None:
        return
    values, error = _parse(text)
    if error is not None:
        mistakes.append(f"{name}:{error.lineno}:{error.colno}: not JSON: {error.msg}.")
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield value, Origin(file=name, row=index, is_line=False)


def _decode(content: bytes, place: str, offset: int, mistakes: list[str]) -> str | None:
    """The text of bytes that begin at `offset` of their file; a byte order mark at its beginning is dropped."""
    skipped = len(BOM) if offset == 0 and content.startswith(BOM) else 0
    try:
        return content[skipped:].decode()
    except UnicodeDecodeError as error:
        at = skipped + error.start
        mistakes.append(
            f"{place}: not UTF-8: byte 0x{content[at]:02x} at offset {offset + at:,} of the file. Convert it to UTF-8."
        )
        return None


def _parse(text: str) -> tuple[object, json.JSONDecodeError | None]:
    try:
        return json.loads(text), None
    except json.JSONDecodeError as error:
        return None, error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        return None, json.JSONDecodeError(f"{type(error).__name__}: {error}", text, 0)
