"""Rows to evaluate on, read into memory as a sweep prepares them: a file alone, or one split of a sweep file.

Nothing is written. The rows of a sweep that has run are on disk already: see `prepare.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pharos.data.formats import Conversation, Text
from pharos.data.load import Notes, chunks_of, rows_of_chunk
from pharos.data.parts import Kitchen, SplitPart, make_split_part
from pharos.data.recipe import open_kitchen
from pharos.data.sources import BUILTIN, Source, content_digest, key_of
from pharos.data.split import split_of
from pharos.data.store import TokenRows
from pharos.data.template_warnings import template_warnings
from pharos.data.tokenise import Skipped, refuse_long_rows
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRows:
    """R rows with, for each, what is generated from (P,) int32, the reference answer, and where it stands.

    digest: of the files' contents and the template. stop_ids: at which an answer ends. skipped: rows that were left
    out. is_text: some are texts without a question, to which no answer can be generated.
    """

    rows: TokenRows
    prompts: list[np.ndarray]
    references: list[str]
    places: list[str]
    digest: str
    stop_ids: tuple[int, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    is_text: bool = False


def held_out_rows(
    spec: DataSpec, *, root: Path, tokenizer_dir: Path, split: Split | None, max_rows: int | None
) -> HeldOutRows:
    """The rows of a split of the data that a sweep's file names, or with none all that `spec.train` names.

    The built-in rows, which have splits of their own, are their test rows then. max_rows: only the first so many, those
    that are left out among them. root: of relative paths. Raises DataError for rows that are malformed, too long where
    data.long_rows=error, or not there; BaseModelError for a tokenizer that cannot be used.
    """
    sources, kitchen = open_kitchen(spec, root=root, tokenizer_dir=tokenizer_dir)
    if split is None:
        split = "test" if spec.train == BUILTIN else "train"
    source = sources.get(split, sources["train"])
    notes = Notes()
    parts: list[SplitPart] = []
    places: list[str] = []
    is_text = False
    for rows in _rows_of(source, split, kitchen, notes):
        room = None if max_rows is None else max_rows - sum(part.num_rows for part in parts)
        taken = rows[:room]
        # Every row that is evaluated has a prompt; those of training rows are not made.
        part = make_split_part(taken, [row.digest for row in taken], "test", kitchen)
        notes.add_mistakes([mistake for _, mistake in part.refused])
        parts.append(part)
        places += [str(taken[place].origin) for place in part.places]
        is_text = is_text or any(isinstance(row, Text) for row in taken)
        if room is not None and len(rows) >= room:
            break
    notes.raise_mistakes(spec.max_bad_rows)
    if spec.long_rows == "error":
        refuse_long_rows([(origin, tokens) for part in parts for _, origin, tokens in part.long], spec.max_length)
    skipped = tuple(row for part in parts for _, row in part.skipped)
    if not places:
        first = f": {skipped[0].origin} for: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{key_of(spec, split)}: no row is left to evaluate{first} ({len(skipped):,} were left out).")
    made_of = [
        content_digest(source),
        split,
        spec.model_dump(exclude={"train", "eval", "test"}),
        kitchen.template.source,
    ]
    ends = {part.end_of_turn for part in parts} - {None}
    return HeldOutRows(
        rows=_joined(parts),
        prompts=[prompt for part in parts for prompt in part.prompts],
        references=[reference for part in parts for reference in part.references],
        places=places,
        digest=hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16],
        stop_ids=tuple(sorted({*kitchen.tokenizer.stop_ids, *(end for end in ends if end is not None)})),
        skipped=skipped,
        notes=(*source.notes, *notes.warnings(), *template_warnings(kitchen.template, kitchen.tokenizer.known_tokens)),
        is_text=is_text,
    )


def first_rows(rows: TokenRows, count: int) -> TokenRows:
    """The first `count` rows of some, or all where there are no more."""
    count = min(count, len(rows))
    end = int(rows.offsets[count])
    return TokenRows(
        tokens=rows.tokens[:end],
        trained=rows.trained[:end],
        offsets=rows.offsets[: count + 1],
        lengths=rows.lengths[:count],
        trained_counts=rows.trained_counts[:count],
        positions=None if rows.positions is None else rows.positions[:end],
        targets=None if rows.targets is None else rows.targets[:end],
    )


def _rows_of(source: Source, split: Split, kitchen: Kitchen, notes: Notes) -> Iterator[list[Conversation | Text]]:
    """The rows of a split, chunk by chunk; where it has no files of its own, those that the training files give it."""
    divides = source.split != split
    for chunk in chunks_of(source, notes):
        notes.refuse_untrained(key_of(kitchen.spec, source.split))
        rows = [row for row in rows_of_chunk(chunk, notes) if isinstance(row, Conversation | Text)]
        yield [row for row in rows if not divides or split_of(row.digest, *kitchen.fractions) == split]


def _joined(parts: list[SplitPart]) -> TokenRows:
    lengths = np.concatenate([part.lengths for part in parts]).astype(np.int64)
    has_targets = any(part.targets is not None for part in parts)
    return TokenRows(
        tokens=np.concatenate([part.tokens for part in parts]),
        trained=np.concatenate([part.trained for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        lengths=lengths,
        trained_counts=np.concatenate([part.num_trained for part in parts]).astype(np.int64),
        targets=np.concatenate([part.tokens if part.targets is None else part.targets for part in parts])
        if has_targets
        else None,
    )
