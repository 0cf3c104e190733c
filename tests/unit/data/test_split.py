"""A row's split follows from its content alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pharos.data.formats import Conversation, Origin, Turn
from pharos.data.split import divide, load_splits, overlaps, split_of
from pharos.errors import DataError
from pharos.spec.model import DataSpec


def conversation(number: int, place: int | None = None) -> Conversation:
    turns = (Turn(role="user", content=f"What is {number}?"), Turn(role="assistant", content=f"It is {number}."))
    return Conversation(turns=turns, origin=Origin(file="train.jsonl", row=number if place is None else place))


def contents(rows: list[Conversation]) -> set[bytes]:
    return {row.digest for row in rows}


ROWS = [conversation(number) for number in range(2000)]


def test_the_fractions_are_kept_within_chance() -> None:
    rows = divide({"train": ROWS}, eval_fraction=0.1, test_fraction=0.2)
    assert len(rows["eval"]) == pytest.approx(200, abs=55)  # four standard deviations
    assert len(rows["test"]) == pytest.approx(400, abs=72)
    assert sum(len(part) for part in rows.values()) == len(ROWS)


def test_a_row_keeps_its_split_in_another_order_and_among_others() -> None:
    first = divide({"train": ROWS}, eval_fraction=0.1, test_fraction=0.1)
    shuffled = random.Random(0).sample(ROWS, 1000)
    second = divide({"train": shuffled}, eval_fraction=0.1, test_fraction=0.1)
    for split, part in second.items():
        assert contents(part) <= contents(first[split])


def test_copies_of_a_row_fall_together() -> None:
    copies = [conversation(number % 50, place=number) for number in range(200)]
    rows = divide({"train": copies}, eval_fraction=0.2, test_fraction=0.2)
    assert not contents(rows["train"]) & contents(rows["eval"])
    assert not contents(rows["train"]) & contents(rows["test"])


def test_another_eval_fraction_moves_no_test_row() -> None:
    small = divide({"train": ROWS}, eval_fraction=0.05, test_fraction=0.1)
    large = divide({"train": ROWS}, eval_fraction=0.3, test_fraction=0.1)
    assert contents(small["test"]) == contents(large["test"])
    assert contents(small["eval"]) < contents(large["eval"])


def test_only_what_is_not_given_is_split_off() -> None:
    test = [conversation(-1)]
    rows = divide({"train": ROWS, "test": test}, eval_fraction=0.1, test_fraction=0.1)
    assert rows["test"] == test
    assert len(rows["train"]) + len(rows["eval"]) == len(ROWS)
    rows = divide({"train": ROWS, "test": test, "eval": test}, eval_fraction=0.1, test_fraction=0.1)
    assert rows["train"] == ROWS


def test_the_split_of_a_digest_is_fixed() -> None:
    assert split_of(bytes(32), 0.05, 0.05) == "test"
    assert split_of(b"\xff" * 32, 0.05, 0.05) == "eval"
    assert split_of(b"\x80" * 32, 0.05, 0.05) == "train"
    assert split_of(bytes(32), 0.05, 0.0) == "train"
    assert split_of(b"\xff" * 32, 0.0, 0.05) == "train"


def test_an_empty_split_says_what_to_raise() -> None:
    rows = [row for row in ROWS[:50] if split_of(row.digest, 0.05, 0.0) == "train"]
    with pytest.raises(DataError, match="none of them falls into eval .*Raise data.eval_fraction, or give data.eval."):
        divide({"train": rows, "test": rows}, eval_fraction=0.05, test_fraction=0.05)


def test_rows_that_stand_in_two_given_splits_are_a_warning() -> None:
    warnings = overlaps({"train": ROWS, "eval": [*ROWS[:3], conversation(-1)], "test": [conversation(-2)]})
    assert len(warnings) == 1
    assert warnings[0].startswith("data.eval: 3 of 4 rows also stand in data.train")


def test_limits_take_the_first_rows_of_each_split(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [{"question": f"q{number}", "answer": "a"} for number in range(300)])
    whole = load_splits(DataSpec(train="train.jsonl"), root=tmp_path)
    limits = DataSpec(train="train.jsonl", max_train_rows=7, max_eval_rows=3, max_test_rows=2)
    cut = load_splits(limits, root=tmp_path)
    assert {split: len(part) for split, part in cut.rows.items()} == {"train": 7, "eval": 3, "test": 2}
    assert list(cut.rows["train"]) == list(whole.rows["train"][:7])


def test_mistakes_of_all_files_come_together(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [{"question": "q", "answer": ""}])
    write_rows("test.jsonl", [{"question": "", "answer": "a"}])
    with pytest.raises(DataError) as error:
        load_splits(DataSpec(train="train.jsonl", test="test.jsonl"), root=tmp_path)
    assert error.value.message.splitlines() == ["train.jsonl:1: answer is empty.", "test.jsonl:1: question is empty."]
