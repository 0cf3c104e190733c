"""Which rows are train, eval and test: by file where files are given, by a hash of the content where not.

Pure, and of rows alone: files, templates and tokens are not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pharos.data.findings import overlap_warning, shared_rows
from pharos.data.formats import Row
from pharos.errors import DataError
from pharos.plan.exchange import HeldOut, Split

SPLITS: tuple[Split, ...] = ("train", "eval", "test")
HELD_OUT: tuple[HeldOut, ...] = ("eval", "test")


def split_of(row_digest: bytes, eval_fraction: float, test_fraction: float) -> Split:
    """Where a row belongs, by its SHA-256 alone: the same in every sweep, file and order, and for all its copies.

    Test takes the low end of the hashes and eval the high end, so changing one fraction moves no row of the other.
    """
    place = (int.from_bytes(row_digest[:8]) >> 11) / 2**53  # of the 53 bits that a float holds: below 1 always
    if place < test_fraction:
        return "test"
    return "eval" if place >= 1.0 - eval_fraction else "train"


def divide(rows: Sequence[Row], fractions: tuple[float, float]) -> dict[Split, list[Row]]:
    """Rows of data.train by the splits that they fall into; fractions: of eval and test to split off."""
    divided: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        divided[split_of(row.digest, *fractions)].append(row)
    return divided


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
