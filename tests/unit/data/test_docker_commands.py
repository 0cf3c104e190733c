"""The quickstart's rows: the same everywhere, no command in two splits, nothing in test that train never names."""

import hashlib
import json
import re

import pytest

from pharos.data.docker_commands import NUM_ROWS, rows


def asks(split):
    return [row["messages"][0]["content"] for row in rows(split)]


def commands(split):
    return [row["messages"][1]["content"] for row in rows(split)]


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_each_split_has_its_rows_in_messages_form(split):
    made = rows(split)
    assert len(made) == NUM_ROWS[split]
    for row in made:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["messages"][1]["content"].startswith("docker ")
        assert not re.search(r"[{}]|\s{2}|\s$|^\s", " | ".join(message["content"] for message in row["messages"]))


def test_the_rows_are_the_same_on_every_machine():
    text = json.dumps([rows(split) for split in NUM_ROWS])
    assert rows("train") == rows("train")
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "36ed9a648c08b26e"


@pytest.mark.parametrize(("split", "others"), [("test", ["train", "eval"]), ("eval", ["train", "test"])])
def test_a_held_out_split_holds_each_command_once_and_none_of_another(split, others):
    held_out = commands(split)
    assert len(held_out) == len(set(held_out)) >= 240
    for other in others:
        assert not set(held_out) & set(commands(other))
        assert not set(asks(split)) & set(asks(other))


@pytest.mark.parametrize("split", ["eval", "test"])
def test_held_out_commands_are_made_of_parts_that_train_names(split):
    def parts(some_split):
        return {part for command in commands(some_split) for part in re.split(r"[\s:=]|\.tar", command)}

    assert parts(split) <= parts("train")


def test_one_request_has_one_answer():
    answers = dict(zip(asks("train"), commands("train"), strict=True))
    assert len(answers) == NUM_ROWS["train"]


def test_the_requests_are_varied():
    train = commands("train")
    assert len({command.split()[1] for command in train}) >= 25
    assert 0.25 < sum(command.startswith("docker run ") for command in train) / len(train) < 0.4
    assert len(set(train)) > 2000
