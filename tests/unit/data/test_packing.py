"""Packs: every row once, none too long, few of them, and the same ones for the same lengths."""

import numpy as np
import pytest

from pharos.data.packing import pack, positions


def test_each_row_lies_in_one_pack_and_none_is_too_long():
    lengths = np.random.default_rng(0).integers(1, 101, size=5000)
    packs = pack(lengths, 100)
    assert sorted(np.concatenate(packs)) == list(range(5000))
    assert max(lengths[rows].sum() for rows in packs) <= 100


def test_the_longest_row_comes_first_and_each_goes_into_the_fullest_pack_that_holds_it():
    # 7 leaves room for 3, 6 for 4: the row of 3 fits both, and goes where it leaves nothing; so does the row of 4.
    assert [list(rows) for rows in pack([3, 6, 4, 7], 10)] == [[3, 0], [1, 2]]
    assert [list(rows) for rows in pack([5, 5, 5], 10)] == [[0, 1], [2]]


def test_packs_are_as_few_as_a_plain_best_fit_makes():
    lengths = np.random.default_rng(1).integers(1, 65, size=400)
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else 64) - length)
    assert len(pack(lengths, 64)) == len(rooms)


def test_no_rows_make_no_packs():
    assert pack([], 10) == []
    assert positions([]).tolist() == []


@pytest.mark.parametrize("lengths", [[11], [3, 0]])
def test_a_row_that_fits_no_pack_is_refused(lengths):
    with pytest.raises(ValueError, match="do not fit packs of 10 tokens"):
        pack(lengths, 10)


def test_positions_begin_anew_with_each_row():
    assert positions([3, 1, 2]).tolist() == [0, 1, 2, 0, 0, 1]
