"""The values that `pharos data check` finds, what they amount to in sentences, and as JSON. Pure; no numbers are made.

A split is train, eval or test; a file that is checked alone is train.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pharos.data.findings import (
    DATE_WARNING,
    RowError,
    cut_at_turn_warning,
    cut_inside_warning,
    overlap_warning,
    repeats_warning,
    skipped_warning,
)
from pharos.data.show import ShownRow

LISTED = 20
"""Of rows in error, repeats and overlaps so many are named; all are counted."""
EXAMPLES = 3
MOST_BUCKETS = 12
Verdict = Literal["clean", "usable", "not usable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A row that says what another says: where the first of them stands, and where this one."""

    first: str
    repeat: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """One split. Lengths are tokens a row, template included, before anything is cut.

    num_kept: rows that are trained on; num_cut_at_turn, num_cut_inside: those of them that were cut,
    between two turns or inside one. num_left_out: rows that
    data.long_rows=skip leaves out; num_masked_out: rows without a trained token within data.max_length.
    histogram: rows in each bucket of the report.
    """

    split: str
    num_rows: int
    num_beyond_limit: int
    num_turns: int
    num_tokens: int
    p50_tokens: int
    p95_tokens: int
    max_tokens: int
    num_kept: int
    num_kept_tokens: int
    num_trained_tokens: int
    num_cut_at_turn: int
    num_cut_inside: int
    first_cut_inside: str
    num_left_out: int
    num_masked_out: int
    num_repeats: int
    repeats: tuple[Repeat, ...]
    histogram: tuple[int, ...]

    @property
    def trained_share(self) -> float:
        return self.num_trained_tokens / self.num_kept_tokens if self.num_kept_tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """num_shared of the num_rows rows of split `other` stand in `split` too."""

    split: str
    other: str
    num_shared: int
    num_rows: int
    listed: tuple[Repeat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CharacterFinding:
    """A control character or the text of a special token in what people say: in how many rows, first where."""

    name: str
    num_rows: int
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A sentence, and some places that it speaks of."""

    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowErrors:
    """Rows in error. kinds: mistakes of each kind, most first. needed_length: that no row is too long for, else 0."""

    num_rows: int
    num_mistakes: int
    num_too_long: int
    needed_length: int
    kinds: Mapping[str, int]
    listed: tuple[RowError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """pad_share: of a padded epoch. fill: of packs. saved_share: of a padded epoch's positions that packing saves."""

    is_on: bool
    micro_batch_size: int
    pad_share: float
    num_rows: int
    num_packs: int
    fill: float
    saved_share: float
    is_sample: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All that was found. The last bucket is open where a few rows are much longer than the others.

    remarks: on columns that are not read, on the template. is_broken: a file could not be read to its end, which
    data.max_bad_rows does not excuse. untrained: why rows cannot be trained on that are no mistake, by their form; a
    sweep refuses them.
    """

    format: str
    template: str
    tokenizer: str
    max_length: int
    long_rows: str
    max_bad_rows: int
    splits: tuple[SplitReport, ...]
    bucket_starts: tuple[int, ...]
    last_bucket_is_open: bool
    overlaps: tuple[Overlap, ...]
    errors: RowErrors
    remarks: tuple[str, ...]
    is_broken: bool
    characters: tuple[CharacterFinding, ...]
    special_tokens: tuple[CharacterFinding, ...]
    packing: Packing | None
    writes_the_date: bool
    untrained: tuple[str, ...] = ()
    is_sweep: bool = False

    @property
    def verdict(self) -> Verdict:
        return "not usable" if obstacles(self) else "usable" if warnings(self) else "clean"


def obstacles(report: CheckReport) -> list[str]:
    """Why a sweep would refuse these rows, one sentence each; none where it would take them."""
    errors, found = report.errors, []
    num_bad = errors.num_rows - errors.num_too_long
    if report.is_broken:
        found.append("a file could not be read to its end")
    elif num_bad > report.max_bad_rows:
        found.append(f"{_rows(num_bad)} in error, and data.max_bad_rows={report.max_bad_rows}")
    if errors.num_too_long:
        found.append(
            f"{_rows(errors.num_too_long)} longer than data.max_length={report.max_length}: set it to "
            f"{errors.needed_length}, or data.long_rows=truncate or skip"
        )
    if report.untrained:
        return found + ([text.rstrip(".") for text in report.untrained] if report.is_sweep else [])
    for part in report.splits:
        if not part.num_rows:
            remedy = f"Raise data.{part.split}_fraction, or give data.{part.split}"
            remedy = "Give more rows" if part.split == "train" else remedy
            found += [] if errors.num_rows else [f"no row falls into {part.split}. {remedy}"]
        elif not part.num_kept and not errors.num_too_long:
            found.append(f"no row of {part.split} has a token to train on within data.max_length={report.max_length}")
    return found


def warnings(report: CheckReport) -> list[Remark]:
    """What is probably a mistake but stops nothing."""
    found = [Remark(text=text) for text in (*report.remarks, *(() if report.is_sweep else report.untrained))]
    num_bad = report.errors.num_rows - report.errors.num_too_long
    if 0 < num_bad <= report.max_bad_rows and not report.is_broken:
        found.append(Remark(text=f"{_rows(num_bad)} in error and left out: data.max_bad_rows={report.max_bad_rows}"))
    for overlap in report.overlaps:
        shared, rows = overlap.num_shared, overlap.num_rows
        text = overlap_warning(overlap.split, overlap.other, num_shared=shared, num_rows=rows)
        found.append(Remark(text=text, examples=_examples(overlap.listed)))
    for part in report.splits:
        if part.num_cut_at_turn:
            found.append(Remark(text=cut_at_turn_warning(part.split, part.num_cut_at_turn, report.max_length)))
        if part.num_cut_inside:
            text = cut_inside_warning(part.split, part.num_cut_inside, report.max_length, first=part.first_cut_inside)
            found.append(Remark(text=text))
        if num_skipped := part.num_left_out + part.num_masked_out:
            found.append(Remark(text=skipped_warning(part.split, num_skipped)))
        if part.num_repeats:
            text = repeats_warning(part.split, part.num_repeats)
            found.append(Remark(text=text, examples=_examples(part.repeats)))
    for one in report.characters:
        found.append(Remark(text=f"{one.name} in the text of {_places(one)}. Was the file made or read wrong?"))
    for one in report.special_tokens:
        text = f"the special token {one.name} in the text of {_places(one)}. The model reads it as the token itself."
        found.append(Remark(text=text))
    return found + ([Remark(text=DATE_WARNING)] if report.writes_the_date else [])


def report_json(report: CheckReport, shown: tuple[ShownRow, ...] = ()) -> dict[str, Any]:
    """The report for programs: its fields, the verdict, and the sentences of `obstacles` and `warnings`."""
    said = {
        "verdict": report.verdict,
        "obstacles": obstacles(report),
        "warnings": [warning.text for warning in warnings(report)],
    }
    return said | asdict(report) | ({"shown": [asdict(row) for row in shown]} if shown else {})


def buckets(lengths: np.ndarray) -> tuple[tuple[int, ...], bool]:
    """Where the buckets of a histogram begin: at most 12 of one round width, and 8 or more over 16 lengths.

    The last is open, and that is told, where the longest rows are more than twice as long as 99 in 100.
    """
    if not len(lengths):
        return (), False
    shortest, longest = int(lengths.min()), int(lengths.max())
    most = int(np.percentile(lengths, 99, method="higher"))
    is_open = longest > 2 * most
    end = most if is_open else longest
    widths = (factor * 10**power for power in range(10) for factor in (1, 1.5, 2, 3, 4, 5, 6, 8))
    for width in widths:
        num_closed = end // int(width) - shortest // int(width) + 1
        if width == int(width) and num_closed + is_open <= MOST_BUCKETS:
            first = shortest // int(width)
            return tuple(int(width) * (first + index) for index in range(int(num_closed) + is_open)), is_open
    raise ValueError(f"a row of {longest} tokens")


def _rows(number: int) -> str:
    return f"{number:,} row is" if number == 1 else f"{number:,} rows are"


def _places(one: CharacterFinding) -> str:
    rows = f"{one.num_rows:,} row" + ("" if one.num_rows == 1 else "s")
    return f"{rows} (first {one.first})"


def _examples(listed: tuple[Repeat, ...]) -> tuple[str, ...]:
    return tuple(f"{row.repeat} says what {row.first} says" for row in listed[:EXAMPLES])
