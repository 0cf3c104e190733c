"""Which rows a trial sees: the same for a step wherever and however it is cut into clocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.token_rows import rows_in_memory

from pharos.data.order import row_order
from pharos.data.prepare import TokenRows
from pharos.train.batches import fuse, next_share, step_targets, target_counts

CPU = torch.device("cpu")


@pytest.fixture
def rows() -> TokenRows:
    """Five rows of 2 to 6 tokens; the last token of each is trained, and of row 4 all of them, the first included."""
    lengths = np.array([2, 3, 4, 5, 6])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    trained = np.zeros(offsets[-1], dtype=np.uint8)
    trained[offsets[1:] - 1] = 1
    trained[offsets[4] :] = 1
    return rows_in_memory(np.arange(10, 10 + offsets[-1]), trained, offsets)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_shards", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 8, 12])
def test_the_clocks_of_a_step_cover_its_rows_once(batch_size: int, num_shards: int, micro_batch_size: int) -> None:
    rows_done, clocks, places, indices = 0, 0, [], []
    while True:
        shares = [
            next_share(
                num_rows=29,
                batch_size=batch_size,
                data_seed=4,
                step=3,
                rows_done=rows_done,
                micro_batch_size=micro_batch_size,
                num_shards=num_shards,
                shard=shard,
            )
            for shard in range(num_shards)
        ]
        assert all(len(share.indices) <= micro_batch_size for share in shares)
        assert len({share.rows_done for share in shares}) == 1
        places += [place for share in shares for place in share.places]
        indices += [index for share in shares for index in share.indices]
        rows_done, clocks = shares[0].rows_done, clocks + 1
        if shares[0].ends_step:
            break
    assert places == list(range(batch_size))
    assert indices == row_order(29, 4, 3 * batch_size, batch_size).tolist()
    assert clocks == -(-batch_size // (micro_batch_size * num_shards))


def test_rows_are_spread_evenly_over_clocks() -> None:
    taken, rows_done = [], 0
    for _ in range(3):
        share = next_share(num_rows=29, batch_size=10, data_seed=0, step=0, rows_done=rows_done, micro_batch_size=4)
        taken.append(len(share.indices))
        rows_done = share.rows_done
    assert taken == [4, 3, 3]


def test_a_fused_batch_is_seat_major_with_dummies_for_missing_rows(rows: TokenRows) -> None:
    batch = fuse(rows, [np.array([1]), np.array([3, 0])], CPU)
    assert batch.rows_per_seat == 2
    assert batch.tokens_RT.tolist() == [[12, 13, 14, 0, 0], [0] * 5, [19, 20, 21, 22, 23], [10, 11, 0, 0, 0]]
    assert batch.positions_N.tolist() == [1, 2 * 5 + 3, 3 * 5 + 0]
    assert batch.targets_N.tolist() == [14, 23, 11]
    assert batch.seats_N.tolist() == [0, 1, 1]


@pytest.mark.parametrize("indices", [[], [np.array([], dtype=np.int64)]], ids=["no seat", "a seat without rows"])
def test_without_rows_there_is_one_dummy_row_without_targets(rows: TokenRows, indices: list[np.ndarray]) -> None:
    batch = fuse(rows, indices, CPU)
    assert batch.tokens_RT.tolist() == [[0]]
    assert len(batch.positions_N) == len(batch.targets_N) == len(batch.seats_N) == 0


def test_a_first_token_is_no_target(rows: TokenRows) -> None:
    assert target_counts(rows).tolist() == [1, 1, 1, 1, 5]
    assert len(fuse(rows, [np.arange(5)], CPU).targets_N) == 9
    assert step_targets(target_counts(rows), batch_size=5, data_seed=0, step=2) == 9


def test_what_is_to_be_predicted_may_be_another_token_than_the_next(rows: TokenRows) -> None:
    usual = fuse(rows, [np.array([1, 4]), np.array([2])], CPU)
    targets = rows.tokens.copy()
    targets[rows.offsets[3] - 1] = 99  # the last token of row 2, the third of the batch
    changed = fuse(replace(rows, targets=targets), [np.array([1, 4]), np.array([2])], CPU)
    assert torch.equal(changed.tokens_RT, usual.tokens_RT)
    assert torch.equal(changed.positions_N, usual.positions_N)
    assert changed.targets_N.tolist() == [*usual.targets_N.tolist()[:-1], 99]
