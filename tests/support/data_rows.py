"""All rows of a small source at once, read as the product reads them, and the rows that prepared data hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pharos.data.formats import Row
from pharos.data.load import Notes, chunks_of, rows_of_chunk
from pharos.data.prepare import PreparedData, open_split
from pharos.data.sources import Source
from pharos.data.tokenise import load_tokenizer
from pharos.plan.exchange import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsRead:
    """Rows in the order of the files, the names of their forms, and what was found on the way."""

    rows: tuple[Row, ...]
    formats: tuple[str, ...]
    mistakes: list[str]
    warnings: tuple[str, ...]


def read_rows(source: Source) -> RowsRead:
    notes = Notes.that_keep_all(True)
    rows = tuple(row for chunk in chunks_of(source, notes) for row in rows_of_chunk(chunk, notes))
    mistakes = [mistake.text for mistake in notes.mistakes]
    return RowsRead(rows=rows, formats=notes.formats, mistakes=mistakes, warnings=(*source.notes, *notes.warnings()))


def texts(prepared: PreparedData, split: Split, tokenizer_dir: Path) -> list[tuple[str, str]]:
    """Each row's text and the part of it that trains."""
    decode = load_tokenizer(tokenizer_dir).tokenizer.decode
    rows = open_split(prepared.directory, split)
    found = []
    for index in range(len(rows)):
        tokens, trained = rows.row(index)
        found.append((decode(tokens.tolist(), False), decode(tokens[trained].tolist(), False)))
    return found
