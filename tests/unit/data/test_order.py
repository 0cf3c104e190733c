"""The order of rows is a pure function of four numbers, and a batch holds its rows and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from pharos.data.order import collate, row_order
from pharos.data.prepare import TokenRows


def rows_of(lengths: list[int]) -> TokenRows:
    """Row i holds the token i + 1 only; all but its first token train."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    tokens = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
    trained = np.ones(len(tokens), dtype=np.uint8)
    trained[offsets[:-1]] = 0
    return TokenRows(
        tokens=tokens,
        trained=trained,
        offsets=offsets,
        lengths=np.diff(offsets),
        trained_counts=np.diff(offsets) - 1,
    )


def test_each_epoch_shows_every_row_once_in_an_order_of_its_own() -> None:
    stream = row_order(100, data_seed=0, start=0, count=300).reshape(3, 100)
    assert all(sorted(epoch) == list(range(100)) for epoch in stream.tolist())
    assert len({tuple(epoch) for epoch in stream.tolist()}) == 3


@pytest.mark.parametrize(("start", "count"), [(0, 7), (5, 0), (93, 20), (250, 50), (1, 299)])
def test_any_part_of_the_stream_can_be_asked_for_alone(start: int, count: int) -> None:
    whole = row_order(100, data_seed=3, start=0, count=300)
    assert row_order(100, data_seed=3, start=start, count=count).tolist() == whole[start : start + count].tolist()


def test_more_rows_than_an_epoch_holds_run_into_the_next_ones() -> None:
    assert row_order(1, data_seed=0, start=0, count=5).tolist() == [0] * 5
    assert row_order(3, data_seed=0, start=2, count=8).shape == (8,)


def test_another_data_seed_is_another_order() -> None:
    orders = {tuple(row_order(50, data_seed=seed, start=0, count=50).tolist()) for seed in range(20)}
    assert len(orders) == 20


def test_the_order_is_fixed_for_good() -> None:
    assert row_order(8, data_seed=0, start=0, count=16).tolist() == [6, 3, 1, 4, 5, 2, 7, 0, 1, 3, 6, 2, 0, 7, 5, 4]
    assert row_order(8, data_seed=0, start=0, count=16).dtype == np.int64


def test_a_caller_cannot_change_the_order_of_the_next() -> None:
    first = row_order(10, data_seed=0, start=0, count=10)
    before = first.tolist()
    first[:] = 0
    assert row_order(10, data_seed=0, start=0, count=10).tolist() == before


def test_no_rows_have_no_order() -> None:
    with pytest.raises(ValueError, match="num_rows=0"):
        row_order(0, data_seed=0, start=0, count=1)


def test_a_batch_is_padded_on_the_right_to_its_longest_row() -> None:
    batch = collate(rows_of([2, 3, 1]), [2, 1, 2], pad_id=9)
    assert batch.tokens.tolist() == [[3, 9, 9], [2, 2, 2], [3, 9, 9]]
    assert batch.trained.tolist() == [[False] * 3, [False, True, True], [False] * 3]
    assert batch.lengths.tolist() == [1, 3, 1]
    assert (batch.tokens.dtype, batch.trained.dtype) == (np.int64, bool)


def test_a_batch_can_be_padded_further_but_never_cuts_a_row() -> None:
    rows = rows_of([2, 3])
    assert collate(rows, np.array([0]), pad_id=0, length=5).tokens.tolist() == [[1, 1, 0, 0, 0]]
    assert collate(rows, [], pad_id=0, length=5).tokens.shape == (0, 5)
    with pytest.raises(ValueError, match="length=2 is less than the 3 tokens"):
        collate(rows, [0, 1], pad_id=0, length=2)
