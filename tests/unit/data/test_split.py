"""A row's split follows from its content alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tests.support.data_rows import texts

from pharos.data.formats import Conversation, Origin, Row, Turn
from pharos.data.prepare import prepare
from pharos.data.split import divide, hashes, overlap_warnings, split_of
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec


def conversation(number: int, place: int | None = None) -> Conversation:
    turns = (Turn(role="user", content=f"What is {number}?"), Turn(role="assistant", content=f"It is {number}."))
    return Conversation(turns=turns, origin=Origin(file="train.jsonl", row=number if place is None else place))


def contents(rows: Iterable[Row]) -> set[bytes]:
    return {row.digest for row in rows}


def json_rows(rows: Iterable[Conversation]) -> list[dict[str, str]]:
    return [{"question": row.turns[0].content, "answer": row.turns[1].content} for row in rows]


def prepared_texts(rows: Iterable[Conversation]) -> list[str]:
    """Of rows as the template writes them."""
    return ["".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in row.turns) for row in rows]


ROWS = [conversation(number) for number in range(2000)]


def test_the_fractions_are_kept_within_chance() -> None:
    rows = divide(ROWS, (0.1, 0.2))
    assert len(rows["eval"]) == pytest.approx(200, abs=55)  # four standard deviations
    assert len(rows["test"]) == pytest.approx(400, abs=72)
    assert sum(len(part) for part in rows.values()) == len(ROWS)


def test_a_row_keeps_its_split_in_another_order_and_among_others() -> None:
    first = divide(ROWS, (0.1, 0.1))
    shuffled = random.Random(0).sample(ROWS, 1000)
    second = divide(shuffled, (0.1, 0.1))
    for split, part in second.items():
        assert contents(part) <= contents(first[split])


def test_copies_of_a_row_fall_together() -> None:
    copies = [conversation(number % 50, place=number) for number in range(200)]
    rows = divide(copies, (0.2, 0.2))
    assert not contents(rows["train"]) & contents(rows["eval"])
    assert not contents(rows["train"]) & contents(rows["test"])


def test_another_eval_fraction_moves_no_test_row() -> None:
    small = divide(ROWS, (0.05, 0.1))
    large = divide(ROWS, (0.3, 0.1))
    assert contents(small["test"]) == contents(large["test"])
    assert contents(small["eval"]) < contents(large["eval"])


def test_only_what_is_not_given_is_split_off(arguments: dict, write_rows: Callable[..., Path]) -> None:
    test = [conversation(-1)]
    write_rows("train.jsonl", json_rows(ROWS))
    write_rows("test.jsonl", json_rows(test))
    spec = DataSpec(train="train.jsonl", test="test.jsonl", eval_fraction=0.1, test_fraction=0.1)

    def found(spec: DataSpec, split: Split) -> list[str]:
        return [text for text, _ in texts(prepare(spec, **arguments), split, arguments["tokenizer_dir"])]

    divided = divide(ROWS, (0.1, 0.0))
    assert found(spec, "test") == prepared_texts(test)
    assert found(spec, "train") == prepared_texts(divided["train"])
    assert found(spec, "eval") == prepared_texts(divided["eval"])
    assert len(divided["train"]) + len(divided["eval"]) == len(ROWS)
    both = spec.model_copy(update={"eval": "test.jsonl"})
    assert found(both, "train") == prepared_texts(ROWS)
    assert found(both, "eval") == found(both, "test") == prepared_texts(test)


def test_the_split_of_a_digest_is_fixed() -> None:
    assert split_of(bytes(32), 0.05, 0.05) == "test"
    assert split_of(b"\xff" * 32, 0.05, 0.05) == "eval"
    assert split_of(b"\x80" * 32, 0.05, 0.05) == "train"
    assert split_of(bytes(32), 0.05, 0.0) == "train"
    assert split_of(b"\xff" * 32, 0.0, 0.05) == "train"


def test_an_empty_split_says_what_to_raise(arguments: dict, write_rows: Callable[..., Path]) -> None:
    rows = [row for row in ROWS[:50] if split_of(row.digest, 0.05, 0.0) == "train"]
    write_rows("train.jsonl", json_rows(rows))
    spec = DataSpec(train="train.jsonl", test="train.jsonl", eval_fraction=0.05, test_fraction=0.05)
    with pytest.raises(DataError, match="none of them falls into eval .*Raise data.eval_fraction, or give data.eval."):
        prepare(spec, **arguments)


def test_rows_that_stand_in_two_given_splits_are_a_warning() -> None:
    given: dict[Split, list[Conversation]] = {
        "train": ROWS,
        "eval": [*ROWS[:3], conversation(-1)],
        "test": [conversation(-2)],
    }
    warnings = overlap_warnings({split: hashes([row.digest for row in rows]) for split, rows in given.items()})
    assert len(warnings) == 1
    assert warnings[0].startswith("data.eval: 3 of 4 rows also stand in data.train")


def test_mistakes_of_all_files_come_together(arguments: dict, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [{"question": "q", "answer": ""}])
    write_rows("test.jsonl", [{"question": "", "answer": "a"}])
    with pytest.raises(DataError) as error:
        prepare(DataSpec(train="train.jsonl", test="test.jsonl"), **arguments)
    assert error.value.message.splitlines() == ["train.jsonl:1: answer is empty.", "test.jsonl:1: question is empty."]
