"""Each form that trains becomes the same conversation, oddities of real files included, and each mistake is named."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from pharos.data.formats import Conversation, Origin, Row, Text, ToolCall, Turn, detect_format, read_row, unused_keys

HERE = Origin(file="train.jsonl", row=17)


def read(row: dict) -> tuple[Row | None, list[str]]:
    form = detect_format(row)
    assert form is not None
    return read_row(row, form, HERE)


def turns_of(row: dict) -> tuple[Turn, ...]:
    conversation, mistakes = read(row)
    assert mistakes == []
    assert isinstance(conversation, Conversation)
    return conversation.turns


def turns(*pairs: tuple[str, str]) -> tuple[Turn, ...]:
    return tuple(Turn(role=role, content=content) for role, content in pairs)


def messages(*roles: str) -> dict:
    return {"messages": [{"role": role, "content": "words"} for role in roles]}


ASKED_AND_TOLD = turns(("user", "Where?"), ("assistant", "There."))
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"what": "lighthouse"}'}}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]},
        {"messages": [{"role": "User", "content": "Where?"}, {"role": "model", "content": "There."}]},
        {"messages": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]},
        {"messages": '[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]'},
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]},
        {"conversations": [{"from": "user", "value": "Where?"}, {"from": "assistant", "value": "There."}]},
        {"conversations": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]},
        {"prompt": "Where?", "completion": "There."},
        {"prompt": [{"role": "user", "content": "Where?"}], "completion": {"role": "assistant", "content": "There."}},
        {"question": "Where?", "answer": "There.", "system": ""},
        {"question": [{"type": "text", "text": "Whe"}, {"type": "text", "text": "re?"}], "answer": "There."},
        {"instruction": "Where?", "input": "", "output": "There."},
        {"instruction": "Where?", "output": "There.", "history": [], "system": None},
        {"instruction": "", "input": "Where?", "output": "There."},
        {"src": "Where?", "tgt": "There."},
        {"src": ["Where?"], "tgt": ["There."], "context": {}},
        {"src": ["Where?"], "tgt": "There.", "context": {"system": ""}},
        {"content": "Where?", "summary": "There."},
        {"input": "Where?", "output": "There."},
    ],
)
def test_every_form_of_a_row_is_the_same_conversation(row: dict) -> None:
    conversation, mistakes = read(row)
    assert mistakes == []
    assert conversation == Conversation(turns=ASKED_AND_TOLD, origin=HERE)
    same = Conversation(turns=conversation.turns, origin=Origin(file="other.json", row=0, is_line=False))
    assert conversation.digest == same.digest


def test_a_digest_is_of_roles_and_contents_alone_so_that_old_splits_stay() -> None:
    said = json.dumps([["user", "Where?"], ["assistant", "There."]]).encode()
    assert Conversation(turns=ASKED_AND_TOLD, origin=HERE).digest == hashlib.sha256(said).digest()


def test_an_alpaca_input_follows_its_instruction_after_a_blank_line() -> None:
    row = {"instruction": "Translate.", "input": "phare", "output": "lighthouse"}
    assert turns_of(row) == turns(("user", "Translate.\n\nphare"), ("assistant", "lighthouse"))


def test_a_history_stands_between_the_system_text_and_the_question() -> None:
    row = {"instruction": "Now?", "output": "Yes.", "system": "Be brief.", "history": [["Where?", "There."]]}
    expected = (*turns(("system", "Be brief.")), *ASKED_AND_TOLD, *turns(("user", "Now?"), ("assistant", "Yes.")))
    assert turns_of(row) == expected
    assert turns_of(row | {"history": json.dumps(row["history"])}) == expected


def test_a_text_is_kept_as_it_is() -> None:
    text, mistakes = read({"text": " [The lighthouse]\n"})
    assert (text, mistakes) == (Text(text=" [The lighthouse]\n", origin=HERE), [])


LIKE_JSON = ['[1]: what is "this"?', '{"a": 1}', '[{"from": "Paris", "to": "Rome"}]', "[]", '["words"]', "{{ words }}"]


@pytest.mark.parametrize("asked", LIKE_JSON)
def test_a_text_that_looks_like_json_stays_a_text(asked: str) -> None:
    assert turns_of({"prompt": asked, "completion": asked})[0].content == asked
    assert turns_of({"src": asked, "tgt": asked})[1].content == asked


def test_a_system_turn_and_several_questions_are_kept_in_order() -> None:
    row = messages("system", "user", "assistant", "user", "assistant", "user")
    assert [turn.role for turn in turns_of(row)] == [turn["role"] for turn in row["messages"]]


def test_a_system_text_stands_in_the_row_or_in_the_turns() -> None:
    row = {"system": "words", "conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "x"}]}
    assert turns_of(row)[0] == Turn(role="system", content="words")
    assert len(turns_of(messages("system", "user", "assistant") | {"system": "words"})) == 3
    assert turns_of(messages("developer", "user", "assistant"))[0].role == "system"
    empty = messages("system", "user", "assistant")
    empty["messages"][0]["content"] = ""
    assert turns_of(empty)[0] == Turn(role="system", content="")  # it keeps a template from writing its own


@pytest.mark.parametrize(
    "calling",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": "", "tool_calls": [CALL["function"] | {"id": "c1"}]},
        {"role": "function_call", "content": '{"name": "find", "arguments": {"what": "lighthouse"}, "id": "c1"}'},
        {"role": "tool_call", "content": [{"name": "find", "arguments": {"what": "lighthouse"}, "id": "c1"}]},
        {"role": "assistant", "function_call": {"name": "find", "arguments": {"what": "lighthouse"}}},
    ],
)
def test_tool_calls_are_kept_however_they_are_written(calling: dict) -> None:
    answer = {"role": "tool", "content": "cliff", "tool_call_id": "c1", "name": "find"}
    row = {"messages": [{"role": "user", "content": "Where?"}, calling, answer, {"role": "assistant", "content": "x"}]}
    asked, called, found, _ = turns_of(row)
    call = ToolCall(name="find", arguments={"what": "lighthouse"}, id=None if "function_call" in calling else "c1")
    assert called == Turn(role="assistant", content="", tool_calls=(call,))
    assert found == Turn(role="tool", content="cliff", tool_call_id="c1", name="find")
    assert asked.message() == {"role": "user", "content": "Where?"}
    assert called.message()["tool_calls"][0]["function"] == {"name": "find", "arguments": {"what": "lighthouse"}}
    assert found.message() == {"role": "tool", "content": "cliff", "tool_call_id": "c1", "name": "find"}


def test_words_and_calls_in_turns_of_their_own_are_one_turn_of_the_assistant() -> None:
    call = {"from": "function_call", "value": '{"name": "find"}'}
    spoken = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "I look."}, call, call]
    _, called = turns_of({"conversations": spoken})
    assert called.content == "I look."
    assert called.tool_calls == (ToolCall(name="find", arguments={}),) * 2


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function", "function": {"name": "find", "parameters": {}}}],
        [{"name": "find", "parameters": {}}],
        '[{"name": "find", "parameters": {}}]',
        ['{"name": "find", "parameters": {}}'],
        {"name": "find", "parameters": {}},
    ],
)
def test_tools_reach_the_template_in_the_frame_that_it_expects(tools: Any) -> None:
    conversation, mistakes = read(messages("user", "assistant") | {"tools": tools})
    assert mistakes == []
    assert conversation.tools == ({"type": "function", "function": {"name": "find", "parameters": {}}},)


@pytest.mark.parametrize("tools", [None, "", [], "[]"])
def test_no_tools_are_no_tools(tools: Any) -> None:
    conversation, _ = read(messages("user", "assistant") | {"tools": tools})
    assert conversation == Conversation(turns=turns(("user", "words"), ("assistant", "words")), origin=HERE)


def said(*last: Any) -> dict:
    return {"messages": [{"role": "user", "content": "Where?"}, *last]}


PARTS = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        (
            {"messages": [*messages("user", "assistant")["messages"], {"role": "asistant", "content": "words"}]},
            "messages[2].role='asistant' is no role. Use system, user, assistant or tool. Did you mean assistant?",
        ),
        (
            {"conversations": [{"from": "narrator", "value": "words"}]},
            "conversations[0].from='narrator' is no role. Use system, human, gpt or observation.",
        ),
        ({"messages": [{"content": "words"}]}, "messages[0].role=None is no role."),
        (
            {"messages": [{"role": "user", "contents": "words"}]},
            "messages[0].content is missing. Did you mean contents",
        ),
        (said({"role": "assistant", "content": ""}), "messages[1].content is empty."),
        (said({"role": "assistant", "content": None}), "messages[1].content must be text, not null."),
        (said({"role": "assistant", "content": "  ", "tool_calls": []}), "messages[1].content is empty."),
        (
            {"messages": [{"role": "user", "content": ["words"]}]},
            "messages[0].content[0] must be an object like {type: text, text: ...}, not text.",
        ),
        (
            {"messages": [{"role": "user", "content": PARTS}]},
            "messages[0].content[1] is of type 'image_url'; only parts of type text can be trained on.",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "messages[0].content[0].text must be text, not a number.",
        ),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content is empty."),
        ({"messages": ["words"]}, "messages[0] must be an object with role and content, not text."),
        ({"conversations": [None]}, "conversations[0] must be an object with from and value, not null."),
        ({"messages": {"role": "user"}}, "messages must be a list of turns, not an object."),
        ({"messages": None}, "messages must be a list of turns, not null."),
        ({"messages": '[{"role": "user"'}, "messages must be a list of turns, not text that is not JSON (Expecting"),
        ({"messages": b"x"}, "messages must be a list of turns, not a bytes."),
        ({"messages": []}, "there is nothing to train on"),
        ({"question": "Where?", "answer": None}, "answer must be text, not null."),
        ({"question": "Where?", "answer": 12}, "answer must be text, not a number."),
        ({"question": "Where?", "answer": " \n"}, "answer is empty."),
        ({"question": "Where?", "answer": "half \ud83d"}, "answer holds half of a surrogate pair"),
        ({"text": ""}, "text is empty."),
        ({"text": 7}, "text must be text, not a number."),
        ({"instruction": "Where?", "input": 3, "output": "There."}, "input must be text, not a number."),
        ({"instruction": "", "input": "", "output": "There."}, "instruction is empty."),
        (
            {"instruction": "a", "output": "b", "history": "never"},
            "history must be a list of questions with their answers, [[question, answer], ...], not text.",
        ),
        (
            {"instruction": "a", "output": "b", "history": [["a"]]},
            "history[0] must be [question, answer], not a list of 1.",
        ),
        (
            {"instruction": "a", "output": "b", "history": ["a"]},
            "history[0] must be [question, answer], not text.",
        ),
        ({"instruction": "a", "output": "b", "history": [["a", ""]]}, "history[0][1] is empty."),
        ({"instruction": "a", "output": "b", "system": 1}, "system must be text, not a number."),
        (
            {"src": ["a", "b"], "tgt": ["c"]},
            "src has 2 turns and tgt has 1: each turn of src is answered by the one of tgt at its place.",
        ),
        ({"src": ["a", " "], "tgt": ["c", "d"]}, "src[1] is empty."),
        ({"src": "a", "tgt": {"b": "c"}}, "tgt must be text, not an object."),
        ({"src": "a", "tgt": "b", "context": "c"}, "context must be an object with system, not text."),
        ({"src": "a", "tgt": "b", "context": {"system": 1}}, "context.system must be text, not a number."),
        (
            messages("system", "user", "assistant") | {"system": "others"},
            "system and the first turn both give a system text. Keep one of them.",
        ),
        (messages("user", "assistant") | {"tools": "find"}, "tools must be a list of tools as JSON schemas, not text."),
        (
            messages("user", "assistant") | {"tools": ["find"]},
            "tools[0] must be an object with name and parameters, not text.",
        ),
        (
            messages("user", "assistant") | {"tools": [{"name": "\ud83d"}]},
            "tools[0] cannot be written as JSON in UTF-8.",
        ),
        (
            said({"role": "assistant", "tool_calls": "find"}),
            "messages[1].tool_calls must hold calls, each with name and arguments, not text.",
        ),
        (
            said({"role": "assistant", "tool_calls": [{"type": "function"}]}),
            "messages[1].tool_calls[0] must be an object with the name of a function and its arguments.",
        ),
        (
            said({"role": "assistant", "tool_calls": [{"name": "find", "arguments": "{broken"}]}),
            "messages[1].tool_calls[0].arguments must be a JSON object, not text that is not JSON (",
        ),
        (
            said({"role": "assistant", "tool_calls": [{"name": "find", "arguments": {"a": "\ud83d"}}]}),
            "messages[1].tool_calls[0] cannot be written as JSON in UTF-8.",
        ),
        (
            said({"role": "assistant", "tool_calls": [{"name": "find", "arguments": '{"a": "\\ud83d"}'}]}),
            "messages[1].tool_calls[0] cannot be written as JSON in UTF-8.",
        ),
        (
            said({"role": "function_call", "content": "find it"}),
            "messages[1].content must hold calls, each with name and arguments, not text.",
        ),
        (
            said({"role": "assistant", "content": "x"}, {"role": "tool", "name": 1, "content": "x"}),
            "messages[2].name must be text, not a number.",
        ),
        (messages("user"), "no turn is the assistant's: there is nothing to train on."),
        (messages("assistant", "user"), "turn 0 is the assistant's and comes before any user turn"),
        (messages("system", "assistant"), "turn 1 is the assistant's and comes before any user turn"),
        (messages("user", "user", "assistant"), "turn 1 is the user's and follows another user turn"),
        (messages("user", "assistant", "assistant"), "turn 2 is the assistant's and follows another assistant turn"),
        (messages("user", "system", "assistant"), "turn 1 is a system turn; only the first turn may be one."),
        (messages("user", "user") | {"system": "words"}, "no turn is the assistant's"),
        (messages("user", "user", "assistant") | {"system": "words"}, "turn 1 is the user's and follows another user"),
        (
            {"messages": [{"role": [[]] * 99, "content": "words"}]},
            "messages[0].role=[[], [], [], [], [], [], [], [], [], ... is no role.",
        ),
        (messages("user", "tool", "assistant"), "turn 1 is a tool's, but no turn of the assistant's, which would call"),
        (messages("user", "assistant", "tool", "user"), "turn 3 is the user's and follows a tool's; the assistant"),
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


def test_an_assistant_may_answer_several_tools() -> None:
    roles = ("user", "assistant", "tool", "tool", "assistant", "user")
    assert [turn.role for turn in turns_of(messages(*roles))] == list(roles)


def test_keys_that_are_not_read_are_told_but_for_the_id_and_what_is_null() -> None:
    row = messages("user", "assistant") | {"id": 3, "source": "web", "score": None}
    row["messages"][1] |= {"weight": 0, "name": "Grace", "refusal": None}
    form = detect_format(row)
    assert form is not None
    assert unused_keys(row, form) == {"source", "messages[].weight"}
    written = row | {"messages": json.dumps(row["messages"])}
    assert unused_keys(written, form) == {"source", "messages[].weight"}
