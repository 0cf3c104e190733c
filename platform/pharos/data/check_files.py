"""The edge of `pharos data check`: reads the files that a sweep names, or one file alone, and has their rows checked.

Rows pass through in pieces; what is kept of them, and every number, is in `check.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pharos.data.check import Check
from pharos.data.check_report import CheckReport
from pharos.data.findings import row_error
from pharos.data.formats import Row, training_mistake
from pharos.data.load import Notes, chunks_of, rows_of_chunk
from pharos.data.show import ShownRow
from pharos.data.sources import find_sources, key_of
from pharos.data.split import SPLITS, divide, fractions_of
from pharos.data.template import choose_template
from pharos.data.template_warnings import template_warnings
from pharos.data.tokenise import load_tokenizer
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.spec.model import SweepSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Rows to show: so many training rows drawn with `seed`, and those that stand at the named places."""

    count: int = 0
    places: tuple[str, ...] = ()
    seed: int = 0


def check_files(
    spec: SweepSpec, *, root: Path, tokenizer_dir: Path, tokenizer_name: str, is_divided: bool, wanted: Wanted
) -> tuple[CheckReport, tuple[ShownRow, ...]]:
    """Check all rows that `spec.data` names, relative to `root`, and show some of them.

    is_divided: whether rows are split off for eval and test where no files are given; a file alone is train as a whole.
    Raises DataError for a name that leads to no file or a row that was asked for and is not there, BaseModelError for a
    tokenizer that cannot be used.
    """
    sources = find_sources(spec.data, root=root)
    tokenizer = load_tokenizer(tokenizer_dir)
    template = choose_template(
        spec.data.template,
        root=root,
        directory=tokenizer_dir,
        special_tokens=tokenizer.special_tokens,
        adds_bos=tokenizer.adds_bos,
    )
    splits = SPLITS if is_divided else tuple(sources)
    check = Check(spec.data, spec.train, template=template, tokenizer=tokenizer, splits=splits)
    pick = _Pick(wanted=wanted)
    fractions = fractions_of(sources, spec.data.eval_fraction, spec.data.test_fraction)
    formats: list[str] = []
    remarks = template_warnings(template, tokenizer.known_tokens)
    untrained: list[str] = []
    is_broken = False
    for split, source in sources.items():
        notes = Notes.that_keep_all(True)
        divides = split == "train" and is_divided
        for chunk in chunks_of(source, notes):
            rows = rows_of_chunk(chunk, notes)
            refused: list[str] = []
            for part, own in (divide(rows, fractions) if divides else {split: rows}).items():
                pick.offer(part, check.add(part, own, refused))
            pick.miss(_take_mistakes(check, notes, refused))
        pick.miss(_take_mistakes(check, notes, []))
        is_broken = is_broken or notes.is_broken
        formats += notes.formats
        remarks += [*source.notes, *notes.warnings()]
        key = key_of(spec.data, split)
        untrained += [text for form in notes.forms.values() if (text := training_mistake(form, key))]
    pick.raise_missing()
    report = check.report(
        format=", ".join(dict.fromkeys(formats)),
        tokenizer=tokenizer_name,
        remarks=remarks,
        untrained=tuple(dict.fromkeys(untrained)),
        is_broken=is_broken,
        is_sweep=is_divided,
    )
    return report, tuple(check.show(split, row) for split, row in pick.chosen())


def _take_mistakes(check: Check, notes: Notes, refused: list[str]) -> list[str]:
    """Have the mistakes of some rows counted, and forget them: a file of any size may be wrong in every row."""
    mistakes = [mistake.text for mistake in notes.mistakes] + refused
    notes.mistakes.clear()
    check.add_mistakes(mistakes)
    return mistakes


@dataclass(slots=True, kw_only=True)
class _Pick:
    """Draws the rows to show while all pass by, each training row with equal chance (Vitter's algorithm R)."""

    wanted: Wanted
    drawn: list[tuple[int, Row]] = field(default_factory=list)
    named: dict[str, tuple[Split, Row]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    num_offered: int = 0
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.generator = random.Random(self.wanted.seed)

    def offer(self, split: Split, rows: Iterable[Row]) -> None:
        for row in rows:
            place = str(row.origin)
            for asked in self.wanted.places:
                if _is_place(place, asked):
                    self.named[asked] = (split, row)
            if split == "train" and self.wanted.count:
                self._draw(row)

    def miss(self, mistakes: Sequence[str]) -> None:
        """Keep what is wrong at the named places."""
        for asked in self.wanted.places:
            for mistake in mistakes:
                if _is_place(row_error(mistake).place, asked):
                    self.wrong.setdefault(asked, mistake)

    def raise_missing(self) -> None:
        """Raises DataError for named places that hold no row, with what is wrong there if that is the reason."""
        for asked in self.wanted.places:
            if asked in self.named:
                continue
            if asked in self.wrong:
                raise DataError(f"--row {asked} cannot be shown, it is in error: {self.wrong[asked]}")
            raise DataError(
                f"--row {asked}: no row that is in use stands there. Name one as in the report: FILE:LINE, or in an "
                "array FILE[INDEX], counted from 0."
            )

    def chosen(self) -> list[tuple[Split, Row]]:
        """Named rows as they were named, then drawn ones in the order of the files."""
        in_order = sorted(self.drawn, key=lambda entry: entry[0])
        return [self.named[asked] for asked in self.wanted.places] + [("train", row) for _, row in in_order]

    def _draw(self, row: Row) -> None:
        number, self.num_offered = self.num_offered, self.num_offered + 1
        if len(self.drawn) < self.wanted.count:
            self.drawn.append((number, row))
        elif (place := self.generator.randrange(number + 1)) < self.wanted.count:
            self.drawn[place] = (number, row)


def _is_place(place: str, asked: str) -> bool:
    """Whether a row's place is the one that was asked for, with its folders or without."""
    return place == asked or place.endswith(f"/{asked}")
