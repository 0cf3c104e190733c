"""From rows to a `CheckReport`: what `pharos data check` tells a person before anything is trained on.

Pure: rows come in by splits, in pieces of any size; no files are opened here, and the view is in console/check_view.py.
Of a row are kept its digest, its place and its lengths, 24 bytes in all, so memory hardly grows with the data.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pharos.data.check_report import (
    LISTED,
    CharacterFinding,
    CheckReport,
    Overlap,
    Packing,
    Repeat,
    RowErrors,
    SplitReport,
    buckets,
)
from pharos.data.findings import CONTROL, RowError, character_name, repeats, row_error, shared_rows, short_digest
from pharos.data.formats import Origin, Row, Trainable
from pharos.data.order import row_order
from pharos.data.packing import pack
from pharos.data.row_kinds import notes_of, num_turns, readings, said_in, tagged_words
from pharos.data.show import ShownPart, ShownRow, shown_part, special_tokens, words_part
from pharos.data.template import Template
from pharos.data.tokenise import Fitted, TextTokenizer, TokenRow, fit_rows, tokenise
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec, TrainSpec

TOO_LONG = "too long"
PACKED_AT_MOST = 100_000
"""Rows whose packing is reckoned: of more, so many drawn by a fixed seed stand for all."""


@dataclass(slots=True)
class _Places:
    """Where each row stands, 4 bytes a row: its number, and from which row on it is of which file."""

    numbers: array[int] = field(default_factory=lambda: array("I"))
    files: list[tuple[int, str, bool]] = field(default_factory=list)

    def add(self, origin: Origin) -> None:
        if not self.files or self.files[-1][1:] != (origin.file, origin.is_line):
            self.files.append((len(self.numbers), origin.file, origin.is_line))
        self.numbers.append(origin.row)

    def at(self, index: int) -> str:
        _, file, is_line = next(entry for entry in reversed(self.files) if entry[0] <= index)
        return str(Origin(file=file, row=self.numbers[index], is_line=is_line))


@dataclass(slots=True)
class _Tally:
    """What is counted of one split. lengths: tokens of each row in use; kept_lengths: of those that are trained on."""

    places: _Places = field(default_factory=_Places)
    digests: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    kept_lengths: array[int] = field(default_factory=lambda: array("I"))
    num_used: int = 0
    num_turns: int = 0
    num_trained_tokens: int = 0
    num_cut_at_turn: int = 0
    num_cut_inside: int = 0
    first_cut_inside: str = ""
    num_left_out: int = 0
    num_masked_out: int = 0


@dataclass(slots=True)
class _Seen:
    """A character or token that does not belong in text: rows that hold it, and where the first does."""

    num_rows: int = 0
    first: str = ""


class Check:
    """Takes rows and makes a report of them.

    data, train: what the sweep file says of lengths, limits and micro-batches; a file alone is checked with defaults.
    splits: those that must have rows.
    """

    def __init__(
        self,
        data: DataSpec,
        train: TrainSpec,
        *,
        template: Template,
        tokenizer: TextTokenizer,
        splits: Sequence[Split] = ("train", "eval", "test"),
    ) -> None:
        self._data, self._train = data, train
        self._template, self._tokenizer = template, tokenizer
        self._tallies: dict[Split, _Tally] = {split: _Tally() for split in splits}
        self._limits = {"train": data.max_train_rows, "eval": data.max_eval_rows, "test": data.max_test_rows}
        self._errors = _Errors()
        self._characters: dict[str, _Seen] = {}
        self._specials: dict[str, _Seen] = {}
        names = sorted(special_tokens(tokenizer), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names))) if names else None

    def add(self, split: Split, rows: Sequence[Row], mistakes: list[str]) -> Sequence[Row]:
        """Count some rows of a split. Returns those that data.max_*_rows leaves in use.

        Rows that the template refuses are appended to `mistakes`, which `add_mistakes` wants to see in the end.
        """
        tally = self._tallies[split]
        for row in rows:
            tally.places.add(row.origin)
            tally.digests.append(short_digest(row.digest))
            self._look_at_text(row)
        limit = self._limits[split]
        used = rows if limit is None else rows[: max(0, limit - tally.num_used)]
        tally.num_used += len(used)
        tally.num_turns += sum(map(num_turns, used))
        tokens = self._tokens([reading for row in used for _, reading in readings(row)], mistakes)
        tally.lengths.extend(len(row.tokens) for row in tokens)
        self._count(tally, self._fit(tokens))
        return used

    def add_mistakes(self, mistakes: Iterable[str]) -> None:
        """Count what is wrong with rows, each said as `FILE:ROW: sentence`."""
        for mistake in mistakes:
            self._errors.add(row_error(mistake))

    def show(self, split: Split, row: Row) -> ShownRow:
        """A row as the model will read it: cut to data.max_length where the sweep would cut it."""
        parts: list[ShownPart] = []
        notes: list[str] = []
        for title, reading in readings(row):
            tokens = self._tokens([reading], notes)
            if tokens:
                kept, note = self._kept(tokens[0])
                parts.append(shown_part(title, kept.tokens, kept.trained, self._tokenizer))
                notes += [note] if note else []
        if words := tagged_words(row):
            parts.append(words_part(words))
        notes += notes_of(row)
        return ShownRow(place=str(row.origin), split=split, note="; ".join(notes), parts=tuple(parts))

    def report(
        self,
        *,
        format: str,
        tokenizer: str,
        remarks: Sequence[str] = (),
        untrained: Sequence[str] = (),
        is_broken: bool = False,
        is_sweep: bool = False,
    ) -> CheckReport:
        """What was found. format: of the rows; tokenizer: whose; remarks: on unread columns and on the template.

        untrained: sentences on forms that cannot be trained on; is_sweep: whether someone wants to. is_broken: whether
        a file could not be read to its end.
        """
        lengths = [np.asarray(tally.lengths) for tally in self._tallies.values()]
        starts, is_open = buckets(np.concatenate(lengths) if lengths else np.empty(0))
        return CheckReport(
            format=format,
            template=self._template.name,
            tokenizer=tokenizer,
            max_length=self._data.max_length,
            long_rows=self._data.long_rows,
            max_bad_rows=self._data.max_bad_rows,
            splits=tuple(_split_report(name, tally, starts) for name, tally in self._tallies.items()),
            bucket_starts=starts,
            last_bucket_is_open=is_open,
            overlaps=tuple(self._overlaps()),
            errors=self._errors.value(),
            remarks=tuple(remarks),
            is_broken=is_broken,
            characters=_findings(self._characters),
            special_tokens=_findings(self._specials),
            packing=self._packing(),
            writes_the_date=self._template.writes_the_date,
            untrained=tuple(untrained),
            is_sweep=is_sweep,
        )

    def _look_at_text(self, row: Row) -> None:
        in_row: set[str] = set()
        for where, said in said_in(row):
            _see(self._characters, map(character_name, CONTROL.findall(said)), f"{row.origin}, {where}", in_row)
            specials = self._special.findall(said) if self._special else ()
            _see(self._specials, map(repr, specials), f"{row.origin}, {where}", in_row)

    def _tokens(self, rows: Sequence[Trainable], mistakes: list[str]) -> list[TokenRow]:
        train_on = self._data.train_on
        return list(tokenise(rows, self._template, self._tokenizer, mistakes, train_on=train_on))

    def _kept(self, row: TokenRow) -> tuple[TokenRow, str]:
        """What is left of a row within data.max_length, or the whole row if nothing is, and what became of it."""
        fitted = self._fit([row])
        if fitted.skipped:
            return row, f"left out: {fitted.skipped[0].reason}"
        is_error = fitted.long and self._data.long_rows == "error"
        note = f"cut from {len(row.tokens):,} tokens" if fitted.long else ""
        return fitted.rows[0], f"longer than data.max_length={self._data.max_length}: an error" if is_error else note

    def _fit(self, rows: Iterable[TokenRow]) -> Fitted:
        return fit_rows(
            rows,
            max_length=self._data.max_length,
            long_rows=self._data.long_rows,
            tokens_of=lambda shorter: self._tokens(shorter, []),
        )

    def _count(self, tally: _Tally, fitted: Fitted) -> None:
        tally.kept_lengths.extend(len(row.tokens) for row in fitted.rows)
        tally.num_trained_tokens += sum(int(row.trained.sum()) for row in fitted.rows)
        skipped_as_long = 0
        for row in fitted.skipped:
            if row.num_tokens > self._data.max_length and self._data.long_rows == "skip":
                skipped_as_long += 1
            else:
                tally.num_masked_out += 1
        tally.num_left_out += skipped_as_long
        if self._data.long_rows == "truncate":
            tally.num_cut_at_turn += len(fitted.cut_at_turn)
            tally.num_cut_inside += len(fitted.cut_inside)
            tally.first_cut_inside = tally.first_cut_inside or next(map(str, fitted.cut_inside), "")
        if self._data.long_rows == "error":
            for origin, num_tokens in fitted.long:
                self._errors.add_too_long(origin, num_tokens, self._data.max_length)

    def _overlaps(self) -> Iterable[Overlap]:
        by_name = {str(split): tally for split, tally in self._tallies.items()}
        shared = shared_rows({name: np.asarray(tally.digests) for name, tally in by_name.items()})
        for (one, other), indices in shared.items():
            tallies = by_name[one], by_name[other]
            digests = np.asarray(tallies[0].digests)
            firsts = [int(np.flatnonzero(digests == tallies[1].digests[index])[0]) for index in indices[:LISTED]]
            yield Overlap(
                split=one,
                other=other,
                num_shared=len(indices),
                num_rows=len(tallies[1].digests),
                listed=tuple(
                    Repeat(first=tallies[0].places.at(first), repeat=tallies[1].places.at(index))
                    for first, index in zip(firsts, indices[:LISTED].tolist(), strict=True)
                ),
            )

    def _packing(self) -> Packing | None:
        return packing_of(
            np.asarray(self._tallies["train"].kept_lengths),
            max_length=self._data.max_length,
            micro_batch_size=self._train.micro_batch_size,
            data_seed=self._train.data_seed,
            is_on=self._data.packing,
        )


def packing_of(
    lengths: np.ndarray, *, max_length: int, micro_batch_size: int, data_seed: int, is_on: bool
) -> Packing | None:
    """What pads cost in the first epoch of rows of these lengths, and what packs would; none without rows.

    Padded: micro-batches in the order of training, each as long as its longest row. Packed: each pack max_length long.
    """
    if not len(lengths):
        return None
    is_sample = len(lengths) > PACKED_AT_MOST
    if is_sample:
        lengths = np.random.default_rng(0).choice(lengths, PACKED_AT_MOST, replace=False)
    lengths = lengths.astype(np.int64)
    in_order = lengths[row_order(len(lengths), data_seed, 0, len(lengths))]
    places = np.arange(0, len(in_order), micro_batch_size)
    sizes = np.diff([*places, len(in_order)])
    padded = int((np.maximum.reduceat(in_order, places) * sizes).sum())
    num_packs = len(pack(lengths, max_length))
    num_tokens, packed = int(lengths.sum()), num_packs * max_length
    return Packing(
        is_on=is_on,
        micro_batch_size=micro_batch_size,
        pad_share=1 - num_tokens / padded,
        num_rows=len(lengths),
        num_packs=num_packs,
        fill=num_tokens / packed,
        saved_share=1 - packed / padded,
        is_sample=is_sample,
    )


def _split_report(name: str, tally: _Tally, starts: Sequence[int]) -> SplitReport:
    lengths = np.asarray(tally.lengths)
    repeat, first = repeats(np.asarray(tally.digests))
    percentiles = np.percentile(lengths, (50, 95, 100), method="higher").tolist() if len(lengths) else (0, 0, 0)
    edges = [*starts, np.iinfo(np.int64).max]
    return SplitReport(
        split=name,
        num_rows=tally.num_used,
        num_beyond_limit=len(tally.digests) - tally.num_used,
        num_turns=tally.num_turns,
        num_tokens=int(lengths.sum(dtype=np.int64)),
        p50_tokens=int(percentiles[0]),
        p95_tokens=int(percentiles[1]),
        max_tokens=int(percentiles[2]),
        num_kept=len(tally.kept_lengths),
        num_kept_tokens=int(np.asarray(tally.kept_lengths).sum(dtype=np.int64)),
        num_trained_tokens=tally.num_trained_tokens,
        num_cut_at_turn=tally.num_cut_at_turn,
        num_cut_inside=tally.num_cut_inside,
        first_cut_inside=tally.first_cut_inside,
        num_left_out=tally.num_left_out,
        num_masked_out=tally.num_masked_out,
        num_repeats=len(repeat),
        repeats=tuple(
            Repeat(first=tally.places.at(one), repeat=tally.places.at(other))
            for one, other in zip(first[:LISTED].tolist(), repeat[:LISTED].tolist(), strict=True)
        ),
        histogram=tuple(np.histogram(lengths, edges)[0].tolist()) if len(starts) else (),
    )


def _see(seen: dict[str, _Seen], names: Iterable[str], place: str, in_row: set[str]) -> None:
    """Count names once a row: `in_row` are those that were met in it."""
    for name in names:
        if name not in in_row:
            in_row.add(name)
            seen.setdefault(name, _Seen(first=place)).num_rows += 1


def _findings(seen: Mapping[str, _Seen]) -> tuple[CharacterFinding, ...]:
    return tuple(
        CharacterFinding(name=name, num_rows=entry.num_rows, first=entry.first) for name, entry in sorted(seen.items())
    )


class _Errors:
    """Rows in error: all counted, the first listed, those that are only too long behind the others."""

    def __init__(self) -> None:
        self._listed: list[RowError] = []
        self._kinds: Counter[str] = Counter()
        self._num_rows = 0
        self._last = ""
        self._too_long: list[RowError] = []
        self._num_too_long = 0
        self._needed = 0

    def add(self, error: RowError) -> None:
        """Mistakes of one row come one after another: it counts once."""
        if error.place != self._last:
            self._num_rows += 1
        self._last = error.place
        self._kinds[error.kind] += 1
        if len(self._listed) < LISTED:
            self._listed.append(error)

    def add_too_long(self, origin: Origin, num_tokens: int, max_length: int) -> None:
        self._num_too_long += 1
        self._needed = max(self._needed, num_tokens)
        if len(self._too_long) < LISTED:
            reason = f"{num_tokens:,} tokens, but data.max_length={max_length}."
            remedy = "Raise data.max_length, or set data.long_rows=truncate or skip."
            self._too_long.append(RowError(place=str(origin), kind=TOO_LONG, reason=reason, remedy=remedy))

    def value(self) -> RowErrors:
        kinds = self._kinds + Counter({TOO_LONG: self._num_too_long})
        return RowErrors(
            num_rows=self._num_rows + self._num_too_long,
            num_mistakes=kinds.total(),
            num_too_long=self._num_too_long,
            needed_length=self._needed,
            kinds=dict(kinds.most_common()),
            listed=tuple([*self._listed, *self._too_long][:LISTED]),
        )
