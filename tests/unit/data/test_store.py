"""What is spilled comes back, in order or in an order of choice, with targets where rows have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pharos.data.store import RowSpill, open_rows, write_ordered_rows, write_rows

ROWS = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]
LENGTHS = np.array([3, 1, 2, 4], dtype=np.int32)


def spilled(folder: Path, *, targets_from: int | None = None) -> RowSpill:
    spill = RowSpill(folder, "train")
    for index, row in enumerate(ROWS):
        tokens = np.array(row, dtype=np.int32)
        targets = tokens + 100 if index == targets_from else None
        spill.add(tokens=tokens, trained=np.ones(len(row), dtype=np.uint8), targets=targets)
    spill.close()
    return spill


def test_rows_come_back_in_their_order(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.arrow", spilled(tmp_path), LENGTHS, LENGTHS)
    rows = open_rows(tmp_path / "train.arrow")
    assert [rows.row(index)[0].tolist() for index in range(len(rows))] == ROWS
    assert (rows.offsets.tolist(), rows.lengths.tolist()) == ([0, 3, 4, 6, 10], LENGTHS.tolist())
    assert rows.trained_counts.tolist() == LENGTHS.tolist()
    assert (rows.positions, rows.targets) == (None, None)


def test_packs_keep_their_rows_apart_and_predict_no_first_token(tmp_path: Path) -> None:
    groups = [np.array([3]), np.array([2, 0]), np.array([1])]
    write_ordered_rows(tmp_path / "train.arrow", spilled(tmp_path), LENGTHS, groups, is_packed=True)
    rows = open_rows(tmp_path / "train.arrow")
    assert [rows.row(index)[0].tolist() for index in range(3)] == [[7, 8, 9, 10], [5, 6, 1, 2, 3], [4]]
    assert rows.positions.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 0]
    assert rows.trained.tolist() == [0, 1, 1, 1, 0, 1, 0, 1, 1, 0]
    assert rows.trained_counts.tolist() == [3, 3, 0]


@pytest.mark.parametrize("targets_from", [0, 2, 3])
def test_targets_are_the_tokens_where_rows_have_none_of_their_own(tmp_path: Path, targets_from: int) -> None:
    spill = spilled(tmp_path, targets_from=targets_from)
    expected = [np.array(row) + 100 * (index == targets_from) for index, row in enumerate(ROWS)]
    write_rows(tmp_path / "whole.arrow", spill, LENGTHS, LENGTHS)
    assert open_rows(tmp_path / "whole.arrow").targets.tolist() == np.concatenate(expected).tolist()
    write_ordered_rows(tmp_path / "turned.arrow", spill, LENGTHS, np.array([3, 0, 0]), is_packed=False)
    turned = [expected[3], expected[0], expected[0]]
    assert open_rows(tmp_path / "turned.arrow").targets.tolist() == np.concatenate(turned).tolist()


def test_writing_maps_the_values_and_does_not_hold_them(tmp_path: Path) -> None:
    import pyarrow

    spill = RowSpill(tmp_path, "train")
    block = np.arange(250_000, dtype=np.int32)
    for _ in range(20):
        spill.add(tokens=block, trained=np.ones(len(block), dtype=np.uint8))
    spill.close()
    lengths = np.full(20, len(block), dtype=np.int32)
    before = pyarrow.default_memory_pool().max_memory()
    write_rows(tmp_path / "train.arrow", spill, lengths, lengths)
    assert pyarrow.default_memory_pool().max_memory() - before < 5_000_000  # of 25 MB
    assert open_rows(tmp_path / "train.arrow").row(19)[0].tolist() == block.tolist()
