"""A file as chunks of rows that are not looked at yet, JSON as text, tables as objects: never more in memory.

Chunks travel to worker processes, so they hold plain values. What a row means is read in `load.py` and `formats.py`.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Literal

from pharos.data import formats, hub
from pharos.data.formats import Origin
from pharos.data.json_arrays import array_elements, parse_json
from pharos.data.sources import SourceFile
from pharos.data.storage import READ_ERRORS, open_bytes, plain_suffix
from pharos.errors import DataError

BOM = b"\xef\xbb\xbf"
CHUNK_BYTES = 1 << 18
CHUNK_ROWS = 1000
MAX_ROW_BYTES = 1 << 28
CSV_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """text: the whole line that a person reads. row: where it is; none: the file cannot be read on after it."""

    text: str
    row: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows of a file, in order. `numbers` are their lines (from 1) or their indices (from 0).

    rows: lines as bytes, elements of a JSON array as text, or values, as `kind` says. offset: of the first line's
    first byte in its file. example: the value of the file's first row, whose form all of its rows must have.
    """

    file: SourceFile
    kind: Literal["lines", "elements", "values"]
    rows: Sequence[Any]
    numbers: Sequence[int]
    is_line: bool
    offset: int = 0
    example: Any = None

    def origin(self, index: int) -> Origin:
        return Origin(file=self.file.name, row=self.numbers[index], is_line=self.is_line)

    def items(self, mistakes: list[Mistake]) -> Iterator[tuple[Any, Origin]]:
        """The JSON value of each row and where it stands. What cannot be read is appended to `mistakes`."""
        offset = self.offset
        for index, row in enumerate(self.rows):
            if self.kind == "values":
                yield row, self.origin(index)
                continue
            text: str | None = row if isinstance(row, str) else None
            if isinstance(row, bytes):
                text, error = decode(row, offset)
                offset += len(row)
                if error is not None:
                    place = str(self.origin(index))
                    mistakes.append(Mistake(text=f"{place}: {error}", row=place))
            if text is not None and text.strip():
                value, wrong = parse_json(text.rstrip())
                if wrong is None:
                    yield value, self.origin(index)
                else:
                    place = str(self.origin(index))
                    message = f"{place}:{wrong.colno}: not JSON: {wrong.msg}. Write one object a line."
                    mistakes.append(Mistake(text=message, row=place))


def read_chunks(file: SourceFile, mistakes: list[Mistake]) -> Iterator[Chunk]:
    """The rows of a file, a few at a time. Where it cannot be read on, that is appended to `mistakes`."""
    read = _hub_chunks if hub.is_hub_id(file.location) else _file_chunks
    try:
        yield from read(file, mistakes)
    except DataError as error:
        mistakes.append(Mistake(text=f"{file.name}: {error.message}", row=None))
    except READ_ERRORS as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        mistakes.append(Mistake(text=f"{file.name}: cannot be read: {reason.rstrip('.')}. Write it again.", row=None))


def decode(content: bytes, offset: int) -> tuple[str | None, str | None]:
    """The text of bytes that begin at `offset` of their file, without a byte order mark, or what is wrong with them."""
    skipped = len(BOM) if offset == 0 and content.startswith(BOM) else 0
    try:
        return content[skipped:].decode(), None
    except UnicodeDecodeError as error:
        at = skipped + error.start
        place = f"byte 0x{content[at]:02x} at offset {offset + at:,} of the file"
        return None, f"not UTF-8: {place}. Convert it to UTF-8."


def _file_chunks(file: SourceFile, mistakes: list[Mistake]) -> Iterator[Chunk]:
    suffix = plain_suffix(file.location)
    with open_bytes(file.location) as stream:
        start = stream.read(4096)
        if suffix == ".parquet" or start.startswith(b"PAR1"):
            yield from _parquet_chunks(file, start, stream)
            return
    with open_bytes(file.location) as stream:
        if suffix in READERS:
            yield from READERS[suffix](file, stream, mistakes)
        elif start.removeprefix(BOM).lstrip().startswith(b"["):
            yield from _array_chunks(file, stream, mistakes)
        else:
            yield from _line_chunks(file, stream, mistakes)


def _line_chunks(file: SourceFile, stream: BinaryIO, mistakes: list[Mistake]) -> Iterator[Chunk]:
    first, offset = 1, 0
    rows: list[bytes] = []
    size = 0
    while True:
        line = stream.readline(MAX_ROW_BYTES)
        if len(line) == MAX_ROW_BYTES:
            mistakes.append(_too_long(f"{file.name}:{first + len(rows)}"))
            return
        if line:
            rows.append(line)
            size += len(line)
        if rows and (not line or size >= CHUNK_BYTES):
            numbers = range(first, first + len(rows))
            yield Chunk(file=file, kind="lines", rows=rows, numbers=numbers, is_line=True, offset=offset)
            first, offset, rows, size = first + len(rows), offset + size, [], 0
        if not line:
            return


def _array_chunks(file: SourceFile, stream: BinaryIO, mistakes: list[Mistake]) -> Iterator[Chunk]:
    """Elements as text, cut out of the array without reading all of it."""
    error: list[str] = []
    elements = array_elements(stream, error, max_characters=MAX_ROW_BYTES)
    first, size = 0, 0
    rows: list[str] = []
    for element in elements:
        rows.append(element)
        size += len(element)
        if size >= CHUNK_BYTES:
            yield _elements(file, rows, first)
            first, size, rows = first + len(rows), 0, []
    if rows:
        yield _elements(file, rows, first)
    mistakes += [Mistake(text=f"{file.name}{text}", row=None) for text in error]


def _elements(file: SourceFile, rows: list[str], first: int) -> Chunk:
    return Chunk(file=file, kind="elements", rows=rows, numbers=range(first, first + len(rows)), is_line=False)


def _table_chunks(file: SourceFile, stream: BinaryIO, mistakes: list[Mistake]) -> Iterator[Chunk]:
    """Rows of CSV or TSV as objects of text; the first line names the columns. A row may span lines."""
    csv.field_size_limit(sys.maxsize)  # of the process: the default refuses a long text
    header = stream.readline(MAX_ROW_BYTES)
    text, error = decode(header, 0)
    if text is None or not text.strip():
        mistakes += [Mistake(text=f"{file.name}:1: {error}", row=None)] if error else []
        return
    is_tabbed = plain_suffix(file.location) == ".tsv"
    delimiter = "\t" if is_tabbed else max(CSV_DELIMITERS, key=text.count)
    lines = _Lines(file, stream, offset=len(header))
    reader = csv.reader(_first_then(text, lines), delimiter=delimiter, strict=True)
    columns: list[str] = []

    def values() -> Iterator[tuple[int, Any]]:
        begin = 1
        for cells in reader:
            if not columns:
                columns.extend(cells)
            elif len(cells) == len(columns):
                yield begin, dict(zip(columns, cells, strict=True))
            elif cells:
                place = f"{file.name}:{begin}"
                wrong = f"{len(cells)} cells, and the header names {len(columns)} columns. Quote cells that hold "
                mistakes.append(Mistake(text=f"{place}: {wrong}{delimiter!r} or a line break.", row=place))
            begin = reader.line_num + 1

    try:
        yield from _value_chunks(file, values(), is_line=True)
    except csv.Error as error:
        place = f"{file.name}:{reader.line_num}"
        mistakes.append(Mistake(text=f"{place}: not CSV: {error}. Quotes inside a cell are doubled.", row=None))
    mistakes += lines.mistakes


def _conll_chunks(file: SourceFile, stream: BinaryIO, mistakes: list[Mistake]) -> Iterator[Chunk]:
    """Sentences of a CoNLL file, each with the line that it begins on."""
    conll_rows = getattr(formats, "conll_rows", None)
    if conll_rows is None:
        mistakes.append(Mistake(text=f"{file.name}: files of tagged tokens cannot be read yet.", row=None))
        return
    lines = _Lines(file, stream)
    rows = ((number, row) for row, number in conll_rows(lines))
    yield from _value_chunks(file, rows, is_line=True)
    mistakes += lines.mistakes


def _arrow_chunks(file: SourceFile, stream: BinaryIO, mistakes: list[Mistake]) -> Iterator[Chunk]:
    """An Arrow stream, as `datasets` saves them to disk."""
    import pyarrow

    rows = (row for batch in pyarrow.ipc.open_stream(stream) for row in _plain_rows(batch))
    yield from _value_chunks(file, enumerate(rows), is_line=False)


def _parquet_chunks(file: SourceFile, start: bytes, stream: BinaryIO) -> Iterator[Chunk]:
    """Parquet is read from its end, so what is compressed on top or lies elsewhere is first copied to a local file."""
    from pyarrow import parquet

    with tempfile.TemporaryFile(prefix="pharos-") as copy:
        source: Any = file.location
        if not isinstance(getattr(stream, "raw", None), io.FileIO):
            copy.write(start)
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            source = copy
        with parquet.ParquetFile(source, pre_buffer=False) as table:
            rows = (row for batch in table.iter_batches(batch_size=CHUNK_ROWS) for row in _plain_rows(batch))
            yield from _value_chunks(file, enumerate(rows), is_line=False)


def _hub_chunks(file: SourceFile, mistakes: list[Mistake]) -> Iterator[Chunk]:
    rows = (row for batch in hub.batches(file.location, CHUNK_ROWS) for row in batch)
    yield from _value_chunks(file, enumerate(rows), is_line=False)


def _plain_rows(batch: Any) -> list[dict[str, Any]]:
    """Rows of an Arrow batch with JSON's kinds of values; what JSON does not know, such as a date, becomes text."""
    from pyarrow import types

    def is_plain(kind: Any) -> bool:
        if types.is_struct(kind):
            return all(is_plain(kind.field(index).type) for index in range(kind.num_fields))
        if types.is_list(kind) or types.is_large_list(kind):
            return is_plain(kind.value_type)
        tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
        return any(test(kind) for test in (*tests, types.is_null))

    odd = [field.name for field in batch.schema if not is_plain(field.type)]
    rows = batch.to_pylist()
    for row in rows:
        row |= {name: str(row[name]) for name in odd if row[name] is not None}
    return rows


def _value_chunks(file: SourceFile, rows: Iterable[tuple[int, Any]], *, is_line: bool) -> Iterator[Chunk]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, CHUNK_ROWS)):
        numbers = [number for number, _ in chunk]
        values = [row for _, row in chunk]
        yield Chunk(file=file, kind="values", rows=values, numbers=numbers, is_line=is_line)


class _Lines:
    """The lines of a file as text, up to one that is not UTF-8 or has no end; that is the mistake."""

    def __init__(self, file: SourceFile, stream: BinaryIO, *, offset: int = 0) -> None:
        self.mistakes: list[Mistake] = []
        self._file, self._stream, self._offset = file, stream, offset

    def __iter__(self) -> Iterator[str]:
        number = 2 if self._offset else 1
        while line := self._stream.readline(MAX_ROW_BYTES):
            place = f"{self._file.name}:{number}"
            text, error = decode(line, self._offset)
            if len(line) == MAX_ROW_BYTES:
                self.mistakes.append(_too_long(place))
                return
            if text is None:
                self.mistakes.append(Mistake(text=f"{place}: {error}", row=None))
                return
            yield text
            self._offset += len(line)
            number += 1


def _first_then(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _too_long(place: str) -> Mistake:
    limit = MAX_ROW_BYTES >> 20
    return Mistake(text=f"{place}: a row of more than {limit} MiB. Write one row a line.", row=None)


READERS: dict[str, Callable[[SourceFile, BinaryIO, list[Mistake]], Iterator[Chunk]]] = {
    ".csv": _table_chunks,
    ".tsv": _table_chunks,
    ".conll": _conll_chunks,
    ".arrow": _arrow_chunks,
}
