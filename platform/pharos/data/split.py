"""Which rows are train, eval and test: by file where files are given, by a hash of the content where not.

Pure but for `load_splits`, which holds all rows in memory: `prepare` streams them instead. Templates and tokens are not
known here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pharos.data.findings import overlap_warning, shared_rows
from pharos.data.formats import Conversation, Text, Trainable, training_mistake
from pharos.data.load import Loaded, load, raise_mistakes
from pharos.data.sources import find_sources
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec

Rows = Mapping[Split, Sequence[Trainable]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The rows of all three splits, cut to data.max_*_rows. `format` names the form or forms of the files."""

    rows: Rows
    format: str
    warnings: tuple[str, ...]


def load_splits(spec: DataSpec, *, root: Path) -> Splits:
    """Read and divide the rows that the spec names, relative to `root`. Raises DataError with all mistakes at once."""
    mistakes: list[str] = []
    loaded = {split: load(source, mistakes) for split, source in find_sources(spec, root=root).items()}
    raise_mistakes(mistakes)
    given = _trainable(loaded, spec)
    rows = divide(given, eval_fraction=spec.eval_fraction, test_fraction=spec.test_fraction)
    limits: dict[Split, int | None] = {
        "train": spec.max_train_rows,
        "eval": spec.max_eval_rows,
        "test": spec.max_test_rows,
    }
    return Splits(
        rows={split: part[: limits[split]] for split, part in rows.items()},
        format=", ".join(dict.fromkeys(name for part in loaded.values() for name in part.formats)),
        warnings=(*(text for part in loaded.values() for text in part.warnings), *overlaps(given)),
    )


def _trainable(loaded: Mapping[Split, Loaded], spec: DataSpec) -> Rows:
    """The rows, all of which can be trained on. Raises DataError naming the form of those that cannot."""
    forms = {(split, form.name): form for split, part in loaded.items() for form in part.forms}
    found = [training_mistake(form, f"data.{split}={getattr(spec, split)}") for (split, _), form in forms.items()]
    raise_mistakes([text for text in found if text])
    return {split: [row for row in part.rows if isinstance(row, Conversation | Text)] for split, part in loaded.items()}


def split_of(row_digest: bytes, eval_fraction: float, test_fraction: float) -> Split:
    """Where a row belongs, by its SHA-256 alone: the same in every sweep, file and order, and for all its copies.

    Test takes the low end of the hashes and eval the high end, so changing one fraction moves no row of the other.
    """
    place = (int.from_bytes(row_digest[:8]) >> 11) / 2**53  # of the 53 bits that a float holds: below 1 always
    if place < test_fraction:
        return "test"
    return "eval" if place >= 1.0 - eval_fraction else "train"


def divide(given: Rows, *, eval_fraction: float, test_fraction: float) -> dict[Split, Sequence[Trainable]]:
    """The three splits. Those of eval and test that are not given are split off the training rows.

    Raises DataError if one of the three has no row.
    """
    fractions = fractions_of(given, eval_fraction, test_fraction)
    divided: dict[Split, list[Trainable]] = {"train": [], "eval": [], "test": []}
    for row in given["train"]:
        divided[split_of(row.digest, *fractions)].append(row)
    rows: dict[Split, Sequence[Trainable]] = {**divided, **{s: given[s] for s in given if s != "train"}}
    refuse_empty({split: len(part) for split, part in rows.items()}, len(given["train"]), fractions)
    return rows


def fractions_of(given: Collection[Split], eval_fraction: float, test_fraction: float) -> tuple[float, float]:
    """The shares of eval and test that are split off the training rows: of those that are not given."""
    return 0.0 if "eval" in given else eval_fraction, 0.0 if "test" in given else test_fraction


def refuse_empty(num_rows: Mapping[Split, int], num_given: int, fractions: tuple[float, float]) -> None:
    """Raises DataError if a split has none of the `num_given` rows of data.train, and says what to raise."""
    for split, count in num_rows.items():
        if not count:
            raise DataError(
                f"data.train has {num_given:,} rows; split by content, none of them falls into {split} "
                f"(data.eval_fraction={fractions[0]}, data.test_fraction={fractions[1]}). "
                f"{'Give more rows' if split == 'train' else f'Raise data.{split}_fraction, or give data.{split}'}."
            )


def overlaps(given: Rows) -> list[str]:
    """A warning for each two files' splits that share rows; rows split off by content can share none."""
    return overlap_warnings({split: hashes([row.digest for row in rows]) for split, rows in given.items()})


def hashes(digests: Sequence[bytes]) -> np.ndarray:
    """The first 8 bytes of each digest, uint64: among a billion rows two differ in them but for one chance in 37."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), dtype=">u8").astype(np.uint64)


def overlap_warnings(given: Mapping[Split, np.ndarray]) -> list[str]:
    """A warning for each two splits whose rows, given by `hashes`, overlap."""
    by_name = {str(split): part for split, part in given.items()}
    return [
        overlap_warning(one, other, num_shared=len(shared), num_rows=len(by_name[other]))
        for (one, other), shared in shared_rows(by_name).items()
    ]
