"""Each form of rows becomes the same conversation, and each mistake of a row is named."""

from __future__ import annotations

import pytest

from pharos.data.formats import Conversation, Origin, Turn, detect_format, read_row, unused_keys

HERE = Origin(file="train.jsonl", row=17)


def read(row: dict) -> tuple[Conversation | None, list[str]]:
    form = detect_format(row)
    assert form is not None
    return read_row(row, form, HERE)


def turns(*pairs: tuple[str, str]) -> tuple[Turn, ...]:
    return tuple(Turn(role=role, content=content) for role, content in pairs)


def messages(*roles: str) -> dict:
    return {"messages": [{"role": role, "content": "words"} for role in roles]}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]},
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]},
        {"conversations": [{"from": "user", "value": "Where?"}, {"from": "assistant", "value": "There."}]},
        {"prompt": "Where?", "completion": "There."},
        {"question": "Where?", "answer": "There."},
        {"instruction": "Where?", "input": "", "output": "There."},
        {"instruction": "Where?", "output": "There."},
    ],
)
def test_every_form_of_a_row_is_the_same_conversation(row: dict) -> None:
    conversation, mistakes = read(row)
    assert mistakes == []
    assert conversation == Conversation(turns=turns(("user", "Where?"), ("assistant", "There.")), origin=HERE)
    same = Conversation(turns=conversation.turns, origin=Origin(file="other.json", row=0, is_line=False))
    assert conversation.digest == same.digest


def test_an_alpaca_input_follows_its_instruction_after_a_blank_line() -> None:
    conversation, _ = read({"instruction": "Translate.", "input": "phare", "output": "lighthouse"})
    assert conversation is not None
    assert conversation.turns == turns(("user", "Translate.\n\nphare"), ("assistant", "lighthouse"))


def test_a_system_turn_and_several_questions_are_kept_in_order() -> None:
    row = messages("system", "user", "assistant", "user", "assistant")
    conversation, mistakes = read(row)
    assert mistakes == []
    assert [turn.role for turn in conversation.turns] == [turn["role"] for turn in row["messages"]]


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        (
            {"messages": [*messages("user", "assistant")["messages"], {"role": "asistant", "content": "words"}]},
            "messages[2].role='asistant' is no role. Use system, user or assistant.",
        ),
        (
            {"conversations": [{"from": "bot", "value": "words"}]},
            "conversations[0].from='bot' is no role. Use human, gpt, system, user or assistant.",
        ),
        ({"messages": [{"content": "words"}]}, "messages[0].role=None is no role."),
        (
            {"messages": [{"role": "user", "contents": "words"}]},
            "messages[0].content is missing. Did you mean contents",
        ),
        ({"messages": [{"role": "user", "content": ["words"]}]}, "messages[0].content must be text, not a list."),
        ({"messages": ["words"]}, "messages[0] must be an object with role and content, not text."),
        ({"messages": {"role": "user"}}, "messages must be a list of turns, not an object."),
        ({"messages": []}, "there is nothing to train on"),
        ({"question": "Where?", "answer": None}, "answer must be text, not null."),
        ({"question": "Where?", "answer": 12}, "answer must be text, not a number."),
        ({"question": "Where?", "answer": " \n"}, "answer is empty."),
        ({"question": "Where?", "answer": "half \ud83d"}, "answer holds half of a surrogate pair"),
        ({"instruction": "Where?", "input": 3, "output": "There."}, "input must be text, not a number."),
        (messages("user"), "no turn is the assistant's: there is nothing to train on."),
        (messages("assistant", "user"), "turn 0 is the assistant's and comes before any user turn"),
        (messages("system", "assistant"), "turn 1 is the assistant's and comes before any user turn"),
        (messages("user", "user", "assistant"), "turn 1 is the user's and follows another user turn"),
        (messages("user", "assistant", "assistant"), "turn 2 is the assistant's and follows another assistant turn"),
        (messages("user", "system", "assistant"), "turn 1 is a system turn; only the first turn may be one."),
    ],
)
def test_a_mistake_names_its_place_and_what_would_work(row: dict, mistake: str) -> None:
    conversation, mistakes = read(row)
    assert conversation is None
    assert len(mistakes) == 1
    assert mistake in mistakes[0]


def test_all_mistakes_of_a_row_come_together() -> None:
    _, mistakes = read({"question": "", "answer": 1})
    assert mistakes == ["question is empty.", "answer must be text, not a number."]


def test_a_row_of_another_form_than_the_first_is_a_mistake() -> None:
    form = detect_format({"question": "Where?", "answer": "There."})
    assert form is not None
    assert read_row({"question": "Where?", "anser": "x"}, form, HERE)[1] == [
        "'answer' is missing; the first row has the form question/answer. Did you mean anser?"
    ]
    assert read_row([1], form, HERE)[1] == ["a row must be a JSON object, not a list."]


def test_keys_that_are_not_read_are_told_but_for_the_id() -> None:
    row = messages("user", "assistant") | {"id": 3, "source": "web"}
    row["messages"][1]["weight"] = 0
    form = detect_format(row)
    assert form is not None
    assert unused_keys(row, form) == {"source", "messages[].weight"}
