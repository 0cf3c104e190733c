"""Chunks of files read as rows: the form of each file found, every mistake located, what is not used counted.

Where rows come from is in `sources.py`, how files are cut in `readers.py`, what a row means in `formats/`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pharos.data import docker_commands
from pharos.data.formats import Format, Row, detect_format, read_row, training_mistake, unknown_form, unused_keys
from pharos.data.readers import CHUNK_ROWS, Chunk, Mistake, read_chunks
from pharos.data.sources import BUILTIN, Source, SourceFile
from pharos.errors import DataError

MISTAKES_SHOWN = 20
MAX_UNUSED_KEYS = 100  # of keys that no form reads: rows may have as many as they are
KEYS_SHOWN = 10
MISTAKE_CHARACTERS = 1000


@dataclass(slots=True, kw_only=True)
class Notes:
    """What is found while rows are read: mistakes, forms, and keys that nothing reads.

    Beyond `max_kept` mistakes they are only counted: a file of any size may be wrong in every row.
    """

    max_kept: int = MISTAKES_SHOWN
    mistakes: list[Mistake] = field(default_factory=list)
    num_mistakes: int = 0
    num_bad_rows: int = 0
    is_broken: bool = False  # a file could not be read to its end
    forms: dict[str, Format] = field(default_factory=dict)
    unused: Counter[tuple[str, str]] = field(default_factory=Counter)
    _last_row: str | None = None

    @classmethod
    def that_keep_all(cls, is_wanted: bool) -> Notes:
        """Notes with every mistake, where bad rows are to be listed in a file, or else with those that are shown."""
        return cls(max_kept=sys.maxsize if is_wanted else MISTAKES_SHOWN)

    def add_mistakes(self, mistakes: Sequence[Mistake]) -> None:
        """Mistakes in the order of the rows: several of one row count it once."""
        for mistake in mistakes:
            self.num_mistakes += 1
            self.is_broken = self.is_broken or mistake.row is None
            self.num_bad_rows += mistake.row is not None and mistake.row != self._last_row
            self._last_row = mistake.row
            if len(self.mistakes) < self.max_kept:
                self.mistakes.append(replace(mistake, text=_printable(mistake.text)))

    def add(self, other: Notes) -> None:
        """What was found in the rows that follow."""
        self.num_mistakes += other.num_mistakes
        self.num_bad_rows += other.num_bad_rows
        self.is_broken = self.is_broken or other.is_broken
        self.mistakes += other.mistakes[: max(0, self.max_kept - len(self.mistakes))]
        self.forms |= other.forms
        self.unused.update(other.unused)

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the forms, in the order in which they were met."""
        return tuple(self.forms)

    def refuse_untrained(self, key: str) -> None:
        """Raises DataError if rows of a form came that Pharos cannot train on. key: the field that names them."""
        for form in self.forms.values():
            mistake = training_mistake(form, key)
            if mistake is not None:
                raise DataError(mistake)

    def refuses(self, max_bad_rows: int) -> bool:
        return self.is_broken or self.num_bad_rows > max_bad_rows

    def raise_mistakes(self, max_bad_rows: int) -> None:
        """Raises DataError with the first mistakes and the count of the rest, where rows cannot just be left out."""
        if not self.refuses(max_bad_rows):
            return
        allowed = (
            [f"{self.num_bad_rows:,} rows are in error, and data.max_bad_rows={max_bad_rows} lets so many be left out."]
            if max_bad_rows and self.num_bad_rows > max_bad_rows
            else []
        )
        shown = [mistake.text for mistake in self.mistakes[:MISTAKES_SHOWN]]
        more = self.num_mistakes - len(shown)
        rest = [f"... and {more:,} more mistakes like these."] if more > 0 else []
        raise DataError("\n".join(allowed + shown + rest))

    def warnings(self) -> list[str]:
        return [f"{file}: {key!r} of {count:,} rows is not used" for (file, key), count in self.unused.items()]


def chunks_of(source: Source, notes: Notes) -> Iterator[Chunk]:
    """The rows of a source, a few at a time, each chunk with the first row of its file as an example of its form."""
    if not source.files:
        yield from _builtin_chunks(source, notes)
    for file in source.files:
        yield from _chunks_of_file(file, notes)


def rows_of_chunk(chunk: Chunk, notes: Notes) -> list[Row]:
    """The rows of a chunk in the form of its example; bad ones are noted and left out."""
    form = _form_of(chunk.example, chunk.file)
    unreadable: list[Mistake] = []
    rows: list[Row] = []
    for item, origin in chunk.items(unreadable):
        if unreadable:
            notes.add_mistakes(unreadable)
            unreadable.clear()
        if form is None:  # refused already, where the file was opened
            continue
        row, wrong = read_row(item, form, origin)
        if wrong:
            notes.add_mistakes([Mistake(text=f"{origin}: {sentence}", row=str(origin)) for sentence in wrong])
        if row is not None:
            rows.append(row)
            for key in unused_keys(item, form):
                if len(notes.unused) < MAX_UNUSED_KEYS or (chunk.file.name, key) in notes.unused:
                    notes.unused[chunk.file.name, key] += 1
    notes.add_mistakes(unreadable)
    return rows


def _printable(text: str) -> str:
    """A mistake as one line that any terminal shows: a row may hold what it cannot show, or would obey."""
    shown = text if len(text) <= MISTAKE_CHARACTERS else text[: MISTAKE_CHARACTERS - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def _builtin_chunks(source: Source, notes: Notes) -> Iterator[Chunk]:
    rows = docker_commands.rows(source.split)
    file = SourceFile(name=BUILTIN, location=BUILTIN)
    for first in range(0, len(rows), CHUNK_ROWS):
        part = rows[first : first + CHUNK_ROWS]
        numbers = range(first, first + len(part))
        yield _with_example(Chunk(file=file, kind="values", rows=part, numbers=numbers, is_line=False), rows[0], notes)


def _chunks_of_file(file: SourceFile, notes: Notes) -> Iterator[Chunk]:
    """Chunks up to the end of the file, or to a mistake that stops it. Its first readable row decides its form."""
    mistakes: list[Mistake] = []
    example: Any = None
    is_found, has_rows = False, False
    for chunk in read_chunks(file, mistakes):
        if not is_found:
            is_found, example = _first_value(chunk)
            if is_found and _form_of(example, file) is None:
                place = next(str(origin) for _, origin in chunk.items([]))
                notes.add_mistakes([Mistake(text=f"{place}: {unknown_form(example, file.columns)}", row=None)])
                return
        has_rows = has_rows or chunk.kind == "values" or any(row.strip() for row in chunk.rows)
        yield _with_example(chunk, example, notes) if is_found else chunk
        if mistakes:
            notes.add_mistakes(mistakes)
            mistakes.clear()
    if not has_rows and not mistakes:
        text = f"{file.name}: the file holds no row. Give it rows, or leave it out."
        mistakes.append(Mistake(text=text, row=None))
    notes.add_mistakes(mistakes)


def _with_example(chunk: Chunk, example: Any, notes: Notes) -> Chunk:
    form = _form_of(example, chunk.file)
    if form is not None:
        notes.forms[form.name] = form
    return replace(chunk, example=example)


def _first_value(chunk: Chunk) -> tuple[bool, Any]:
    for item, _ in chunk.items([]):
        return True, item
    return False, None


def _form_of(example: Any, file: SourceFile) -> Format | None:
    return detect_format(example, name=file.format, columns=file.columns)
