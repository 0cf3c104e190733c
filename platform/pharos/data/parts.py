"""From a chunk of rows to flat arrays of tokens for each split, and what was found on the way.

Runs in worker processes: plain values come in and go out. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from pharos.data.formats import Conversation, Origin, Text, Trainable
from pharos.data.load import Notes, rows_of_chunk
from pharos.data.readers import Chunk, Mistake
from pharos.data.split import hashes, split_of
from pharos.data.template import Template
from pharos.data.tokenise import Skipped, TextTokenizer, TokenRow, end_of_turn_id, fit_rows, render_prompt, tokenise
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Kitchen:
    """What turns rows into tokens: the spec, the tokenizer, the template; fractions: of eval and test to split off."""

    spec: DataSpec
    tokenizer: TextTokenizer
    template: Template
    fractions: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A chunk, and the split that the spec names its file for. is_checked_only: read it, but make no tokens of it."""

    chunk: Chunk
    split: Split
    is_checked_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPart:
    """Rows of one split, K of `num_rows` kept, end to end: tokens int32, trained uint8, targets int32 if they differ.

    lengths, num_trained int32 (K,). places int32 (K,): which of the rows each is; so do the first values of refused,
    long, cut_at_turn, cut_inside and skipped. digests uint64 (K,): a hash of each row's content, not the one that
    decides its split. end_of_turn: the token that ends the shortest row. prompts, references: of each row that is
    held out.
    """

    num_rows: int
    tokens: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray
    num_trained: np.ndarray
    places: np.ndarray
    digests: np.ndarray
    end_of_turn: int | None
    refused: list[tuple[int, Mistake]] = field(default_factory=list)
    long: list[tuple[int, Origin, int]] = field(default_factory=list)
    cut_at_turn: list[tuple[int, Origin]] = field(default_factory=list)
    cut_inside: list[tuple[int, Origin]] = field(default_factory=list)
    skipped: list[tuple[int, Skipped]] = field(default_factory=list)
    prompts: list[np.ndarray] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    targets: np.ndarray | None = None

    def cut(self, num_rows: int) -> SplitPart:
        """Of the first `num_rows` rows alone."""
        if num_rows >= self.num_rows:
            return self
        kept = int(np.searchsorted(self.places, num_rows))
        end = int(self.lengths[:kept].sum())
        return replace(
            self,
            num_rows=num_rows,
            tokens=self.tokens[:end],
            trained=self.trained[:end],
            targets=None if self.targets is None else self.targets[:end],
            lengths=self.lengths[:kept],
            num_trained=self.num_trained[:kept],
            places=self.places[:kept],
            digests=self.digests[:kept],
            refused=[found for found in self.refused if found[0] < num_rows],
            long=[found for found in self.long if found[0] < num_rows],
            cut_at_turn=[found for found in self.cut_at_turn if found[0] < num_rows],
            cut_inside=[found for found in self.cut_inside if found[0] < num_rows],
            skipped=[found for found in self.skipped if found[0] < num_rows],
            prompts=self.prompts[:kept],
            references=self.references[:kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a chunk becomes. digests uint64: of all its rows, by which rows in two given splits are found."""

    split: Split
    mixed_part: int
    notes: Notes
    num_rows: int
    digests: np.ndarray
    splits: dict[Split, SplitPart]


def make_part(task: Task, kitchen: Kitchen) -> Part:
    """Rows and tokens of one chunk."""
    notes = Notes.that_keep_all(kitchen.spec.max_bad_rows > 0)
    # Rows of other kinds were refused when their form was found.
    rows = [row for row in rows_of_chunk(task.chunk, notes) if isinstance(row, Conversation | Text)]
    digests = [row.digest for row in rows]
    by_split: dict[Split, list[int]] = {}
    for index, digest in enumerate(digests):
        split = split_of(digest, *kitchen.fractions) if task.split == "train" else task.split
        by_split.setdefault(split, []).append(index)
    parts = {}
    for split, indices in by_split.items():
        if task.is_checked_only:
            parts[split] = empty_part(len(indices))
        else:
            chosen = [rows[index] for index in indices]
            parts[split] = make_split_part(chosen, [digests[index] for index in indices], split, kitchen)
    return Part(
        split=task.split,
        mixed_part=task.chunk.file.part,
        notes=notes,
        num_rows=len(rows),
        digests=hashes(digests),
        splits=parts,
    )


def make_split_part(rows: Sequence[Trainable], digests: Sequence[bytes], split: Split, kitchen: Kitchen) -> SplitPart:
    """Some rows of one split as tokens of at most data.max_length."""
    spec = kitchen.spec
    refused: list[str] = []
    tokens_of = partial(
        tokenise,
        template=kitchen.template,
        tokenizer=kitchen.tokenizer,
        mistakes=refused,
        train_on=spec.train_on,
    )
    fitted = fit_rows(tokens_of(rows), max_length=spec.max_length, long_rows=spec.long_rows, tokens_of=tokens_of)
    is_whole = len(fitted.rows) == len(rows)
    places = {} if is_whole and not fitted.long else {row.origin: place for place, row in enumerate(rows)}
    kept = range(len(rows)) if is_whole else [places[row.conversation.origin] for row in fitted.rows]
    by_name = {str(origin): place for origin, place in places.items()} if refused else {}
    asked = fitted.rows if split != "train" else []
    prompts = [render_prompt(row.conversation, kitchen.template, kitchen.tokenizer) for row in asked]
    shortest = min(fitted.rows, key=lambda row: len(row.tokens), default=None)  # the last to have lost its end by a cut
    lengths = np.array([len(row.tokens) for row in fitted.rows], dtype=np.int32)
    trained = np.concatenate([row.trained for row in fitted.rows] or [np.empty(0, dtype=bool)])
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return SplitPart(
        num_rows=len(rows),
        tokens=np.concatenate([row.tokens for row in fitted.rows] or [np.empty(0, dtype=np.int32)]),
        trained=trained.view(np.uint8),
        lengths=lengths,
        num_trained=np.add.reduceat(trained, starts, dtype=np.int32) if len(lengths) else lengths,
        places=np.array(kept, dtype=np.int32),
        digests=hashes([digests[place][8:] for place in kept]),
        end_of_turn=None if shortest is None else end_of_turn_id(shortest, kitchen.tokenizer),
        refused=[(by_name.get(_row_of(text), 0), Mistake(text=text, row=_row_of(text))) for text in refused],
        long=[(places[origin], origin, num_tokens) for origin, num_tokens in fitted.long],
        cut_at_turn=[(places[origin], origin) for origin in fitted.cut_at_turn],
        cut_inside=[(places[origin], origin) for origin in fitted.cut_inside],
        skipped=[(places[skipped.origin], skipped) for skipped in fitted.skipped],
        prompts=[tokens for tokens, _ in prompts],
        references=[text for _, text in prompts],
        targets=_targets(fitted.rows),
    )


def empty_part(num_rows: int) -> SplitPart:
    """Rows that were read and not made into tokens."""
    none = np.empty(0, dtype=np.int32)
    return SplitPart(
        num_rows=num_rows,
        tokens=none,
        trained=none.astype(np.uint8),
        lengths=none,
        num_trained=none,
        places=none,
        digests=none.astype(np.uint64),
        end_of_turn=None,
    )


def _targets(rows: Sequence[TokenRow]) -> np.ndarray | None:
    """What is to be predicted in the place of each token, end to end, where it is not always the token itself."""
    targets = [row.targets for row in rows]
    if all(row_targets is None for row_targets in targets):
        return None
    return np.concatenate([row.tokens if own is None else own for row, own in zip(rows, targets, strict=True)])


def _row_of(mistake: str) -> str:
    return mistake.partition(": ")[0]
