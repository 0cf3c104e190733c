"""Packs: every row once, none too long, few of them, and the same ones for the same lengths."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pharos.data.facts import data_facts
from pharos.data.packing import best_fit_decreasing, filled_exactly, pack, positions
from pharos.data.prepare import open_split, prepare
from pharos.spec.model import DataSpec

SPEC = DataSpec(train="train.jsonl", eval_fraction=0.2, test_fraction=0.2, max_length=256)


def test_each_row_lies_in_one_pack_and_none_is_too_long():
    lengths = np.random.default_rng(0).integers(1, 101, size=5000)
    packs = pack(lengths, 100)
    assert sorted(np.concatenate(packs)) == list(range(5000))
    assert max(lengths[rows].sum() for rows in packs) <= 100


def test_the_longest_row_comes_first_and_each_goes_into_the_fullest_pack_that_holds_it():
    # 7 leaves room for 3, 6 for 4: the row of 3 fits both, and goes where it leaves nothing; so does the row of 4.
    assert [list(rows) for rows in pack([3, 6, 4, 7], 10)] == [[3, 0], [1, 2]]
    assert [list(rows) for rows in pack([5, 5, 5], 10)] == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("lengths", "packs"),
    [
        ([10, 4, 6], [[0], [2, 1]]),
        ([6, 2, 2, 5, 5], [[0, 1, 2], [3, 4]]),  # a pair fills the rest; 5 is longer, but leaves room
        ([4, 3, 2, 1, 4, 6], [[5, 0], [4, 1, 2, 3]]),  # one fills the first, three the second
        ([7, 2], [[0, 1]]),  # nothing fills it, and what fits goes in
        ([4, 3, 3, 3], [[0, 1, 2], [3]]),  # 3 + 3 is a pair of two rows
        ([4, 3], [[0, 1]]),  # but not of one
    ],
)
def test_what_fills_a_pack_to_its_last_token_goes_before_what_is_longest(
    lengths: list[int], packs: list[list[int]]
) -> None:
    assert filled_exactly(np.array(lengths), 10) == packs


def test_rows_that_were_cut_from_full_packs_fill_them_again() -> None:
    generator = np.random.default_rng(2)
    pieces = [np.diff(np.sort(np.concatenate([[0, 512], generator.integers(40, 470, size=3)]))) for _ in range(2000)]
    lengths = np.concatenate(pieces)
    lengths = generator.permutation(lengths[lengths > 0])
    packs = pack(lengths, 512)
    assert sorted(np.concatenate(packs)) == list(range(len(lengths)))
    assert max(lengths[rows].sum() for rows in packs) <= 512
    assert len(packs) <= 2005


def test_packs_are_never_more_than_a_plain_best_fit_makes():
    lengths = np.random.default_rng(1).integers(1, 65, size=400)
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else 64) - length)
    assert len(best_fit_decreasing(lengths, 64)) == len(rooms)
    assert len(pack(lengths, 64)) <= len(rooms)


def test_no_rows_make_no_packs():
    assert pack([], 10) == []
    assert positions([]).tolist() == []


@pytest.mark.parametrize("lengths", [[11], [3, 0]])
def test_a_row_that_fits_no_pack_is_refused(lengths):
    with pytest.raises(ValueError, match="do not fit packs of 10 tokens"):
        pack(lengths, 10)


def test_positions_begin_anew_with_each_row():
    assert positions([3, 1, 2]).tolist() == [0, 1, 2, 0, 0, 1]


@pytest.fixture
def arguments(tmp_path: Path, write_tokenizer: Callable[..., Path], write_rows: Callable[..., Path]) -> dict:
    rows = [{"question": f"What is {n}?", "answer": f"It is {n} " + "!" * (n % 7)} for n in range(100)]
    write_rows("train.jsonl", rows)
    return {
        "root": tmp_path,
        "tokenizer_dir": write_tokenizer(),
        "tokenizer_digest": "0123",
        "cache_dir": tmp_path / "cache",
    }


def test_packs_on_disk_hold_the_same_rows_as_unpacked_training_rows(arguments: dict) -> None:
    plain, packed = prepare(SPEC, **arguments), prepare(SPEC.model_copy(update={"packing": True}), **arguments)
    assert packed.digest != plain.digest
    rows, packs = open_split(plain.directory, "train"), open_split(packed.directory, "train")
    apart = [(tuple(tokens), tuple(trained)) for tokens, trained in map(rows.row, range(len(rows)))]
    found = []
    for index in range(len(packs)):
        tokens, trained = packs.row(index)
        assert len(tokens) <= SPEC.max_length
        begins = np.flatnonzero(packs.positions[packs.offsets[index] : packs.offsets[index + 1]] == 0)[1:]
        found += zip(map(tuple, np.split(tokens, begins)), map(tuple, np.split(trained, begins)), strict=True)
    assert sorted(found) == sorted(apart)
    assert len(packs) < len(rows) / 2


def test_eval_and_test_rows_stay_apart(arguments: dict) -> None:
    packed = prepare(SPEC.model_copy(update={"packing": True}), **arguments)
    assert open_split(packed.directory, "eval").positions is None
    assert open_split(packed.directory, "test").positions is None


def test_the_plan_counts_packs_as_they_will_be(arguments: dict) -> None:
    spec = SPEC.model_copy(update={"packing": True})
    foreseen = data_facts(spec, **arguments)
    prepared = prepare(spec, **arguments)
    assert foreseen.num_packs == foreseen.num_train_items == len(open_split(prepared.directory, "train"))
    assert foreseen == prepared.facts
    sampled = data_facts(spec, **arguments | {"cache_dir": arguments["root"] / "empty"}, sample_rows=40)
    assert sampled.num_packs == pytest.approx(foreseen.num_packs, abs=4)
    assert data_facts(SPEC, **arguments).num_train_items == foreseen.num_train_rows
