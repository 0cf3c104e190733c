"""Judged answers: a better and a worse one, or one with a label. What is wrong with a row is named."""

from __future__ import annotations

from typing import Any

import pytest

from pharos.data.formats import Labelled, Origin, Preference, Row, detect_format, read_row, unused_keys

HERE = Origin(file="train.jsonl", row=17)


def read(row: dict) -> tuple[Row | None, list[str]]:
    form = detect_format(row)
    assert form is not None
    return read_row(row, form, HERE)


def turn(role: str, content: str = "words") -> dict:
    return {"role": role, "content": content}


def paddle(**changes: Any) -> dict:
    return {"src": ["a"], "tgt": [], "response": ["b", "c"], "sort": [1, 0]} | changes


def test_a_preference_outranks_the_columns_beside_it() -> None:
    whole = [turn("user"), turn("assistant", "better")]
    row = {
        "prompt": "words",
        "messages": whole,
        "chosen": whole,
        "rejected": [turn("user"), turn("assistant", "worse")],
        "score_chosen": 9.5,
    }
    preference, mistakes = read(row)
    assert mistakes == []
    assert isinstance(preference, Preference)
    assert [len(part) for part in (preference.prompt, preference.chosen, preference.rejected)] == [1, 1, 1]
    form = detect_format(row)
    assert form is not None
    assert unused_keys(row, form) == {"score_chosen"}


def test_answers_of_several_turns_part_where_they_differ() -> None:
    start = [turn("system"), turn("user"), turn("assistant"), turn("user", "And?")]
    chosen = [*start, turn("assistant", "better"), turn("user"), turn("assistant")]
    preference, mistakes = read({"chosen": chosen, "rejected": [*start, turn("assistant", "worse")]})
    assert mistakes == []
    assert isinstance(preference, Preference)
    assert [len(part) for part in (preference.prompt, preference.chosen, preference.rejected)] == [4, 3, 1]


def test_the_larger_number_of_sort_is_the_better_answer() -> None:
    for sort, better in (([1, 0], "b"), ([0, 1], "c"), ([0.5, 2], "c")):
        preference, _ = read(paddle(sort=sort, tgt=None, context={"system": "Be brief."}))
        assert isinstance(preference, Preference)
        assert preference.chosen[0].content == better
        assert preference.prompt[0].content == "Be brief."


@pytest.mark.parametrize(("label", "wanted"), [(True, True), (False, False), ("true", True), ("False", False)])
def test_a_label_is_true_or_false(label: Any, wanted: bool) -> None:
    labelled, mistakes = read({"question": "a", "answer": "b", "label": label})
    assert mistakes == []
    assert isinstance(labelled, Labelled)
    assert labelled.label is wanted


def test_numbers_are_labels_only_where_the_form_is_named() -> None:
    row = {"prompt": "a", "completion": "b", "label": 1}
    form = detect_format(row)
    assert form is not None
    assert form.name == "prompt/completion"
    named = detect_format(row, name="kto")
    assert named is not None
    labelled, _ = read_row(row, named, HERE)
    assert isinstance(labelled, Labelled)
    assert labelled.label


SAME = [turn("user"), turn("assistant")]


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        (
            {"chosen": "a", "rejected": "b"},
            "there is no prompt that chosen and rejected answer. Add a column prompt, or give both as whole lists of",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same: there is nothing to"),
        ({"chosen": SAME, "rejected": SAME}, "chosen and rejected are the same: there is nothing to prefer."),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "rejected is empty."),
        ({"prompt": "a", "chosen": 1, "rejected": "b"}, "chosen must be text, not a number."),
        ({"prompt": 1, "chosen": "a", "rejected": "b"}, "prompt must be text, not a number."),
        (
            {"chosen": [turn("user", "a"), turn("assistant")], "rejected": [turn("user", "b"), turn("assistant")]},
            "chosen and rejected part at turn 0, and not with an answer of the assistant's on both sides",
        ),
        (
            {"chosen": SAME, "rejected": [*SAME, turn("user")]},
            "chosen and rejected part at turn 2, and not with an answer of the assistant's on both sides",
        ),
        (
            {"prompt": "other", "chosen": SAME, "rejected": [turn("user"), turn("assistant", "worse")]},
            "prompt is none of the turns that chosen and rejected begin with. Remove it, or leave only the answers",
        ),
        (
            {"prompt": SAME, "chosen": "a", "rejected": "b"},
            "chosen with its prompt: turn 2 is the assistant's and follows another assistant turn",
        ),
        ({"chosen": [turn("usr")], "rejected": "b"}, "chosen[0].role='usr' is no role."),
        (paddle(response=["b"]), "response must be a list of two answers, not 1 of them."),
        (paddle(response="b"), "response must be a list of two answers, not text."),
        (paddle(response=["b", " "]), "response[1] is empty."),
        (paddle(sort=[1, 1]), "sort must be two different numbers, the larger one for the better answer, as in [1, 0]"),
        (paddle(sort=[1]), "sort must be two different numbers"),
        (paddle(sort=["1", "0"]), "sort must be two different numbers"),
        (paddle(tgt=["d"]), "src has 1 turns and tgt has 1: src must have one more, which the responses answer."),
        (
            {"messages": [turn("user"), turn("assistant"), turn("user")], "label": True},
            "the last turn is the user's; the label judges an assistant's turn.",
        ),
        ({"prompt": "a", "completion": "", "label": True}, "completion is empty."),
    ],
)
def test_a_mistake_names_its_place_and_what_would_work(row: dict, mistake: str) -> None:
    judged, mistakes = read(row)
    assert judged is None
    assert len(mistakes) == 1
    assert mistake in mistakes[0]


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        ({"prompt": "a", "completion": "b", "label": "good"}, "label must be true or false, not text."),
        ({"prompt": "a", "completion": "b", "label": None}, "label must be true or false, not null."),
        (
            {"query": "a", "reply": "b", "label": True},
            "there is no answer that the label judges. A row needs one of: messages, conversations, prompt + ",
        ),
        ({"prompt": "a", "completion": "b"}, "'label' is missing; data.format=kto needs it."),
    ],
)
def test_a_mistake_in_a_form_that_data_format_names(row: dict, mistake: str) -> None:
    form = detect_format(row, name="kto")
    assert form is not None
    assert mistake in read_row(row, form, HERE)[1][0]
