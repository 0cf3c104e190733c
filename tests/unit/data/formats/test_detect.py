"""Which form is found for a row, what data.format and data.columns change, and what cannot be trained on yet."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.support.data_rows import read_rows

from pharos.data.formats import (
    FORMATS,
    Conversation,
    Origin,
    column_mistakes,
    detect_format,
    read_row,
    training_mistake,
    unknown_form,
    unused_keys,
)
from pharos.data.prepare import prepare
from pharos.data.sources import find_sources
from pharos.errors import DataError
from pharos.spec.format_names import FORMAT_NAMES, all_format_names
from pharos.spec.model import DataSpec

HERE = Origin(file="train.jsonl", row=17)
MESSAGES = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"instruction": "a", "input": "b", "output": "c", "text": "d"}, "alpaca"),
        ({"input": "a", "output": "b"}, "input/output"),
        ({"messages": MESSAGES, "prompt": "a", "text": "b"}, "messages"),
        ({"messages": MESSAGES, "label": "travel"}, "messages"),
        ({"messages": MESSAGES, "label": False}, "kto"),
        ({"text": "a", "label": True}, "text"),
        ({"instruction": "a", "output": "b", "kto_tag": True}, "kto"),
        ({"conversations": [], "chosen": {}, "rejected": {}}, "preference"),
        ({"src": "a", "tgt": "b", "response": [], "sort": []}, "paddlenlp-preference"),
        ({"src": "a", "tgt": "b"}, "paddlenlp"),
        ({"tokens": [], "ner_tags": [], "text": "a"}, "tagged"),
        ({"messages": None, "prompt": "a", "completion": "b", "chosen": None, "rejected": None}, "prompt/completion"),
        ({"question": "a", "answer": None}, "question/answer"),
        ({"mesages": MESSAGES}, None),
        ({"label": True}, None),
        ([1], None),
    ],
)
def test_the_form_with_the_most_of_its_own_keys_is_found(row: object, name: str | None) -> None:
    form = detect_format(row)
    assert (form and form.name) == name


def test_a_named_form_is_read_whatever_the_keys_would_tell() -> None:
    row = {"messages": MESSAGES, "label": True, "text": "a"}
    for name, kind in (("messages", Conversation), ("OpenAI", Conversation)):
        form = detect_format(row, name=name)
        assert form is not None
        assert isinstance(read_row(row, form, HERE)[0], kind)
        assert unused_keys(row, form) == {"label", "text"}
    form = detect_format(row, name="qa")
    assert form is not None
    assert read_row(row, form, HERE) == (None, ["'question' is missing; data.format=qa needs it."])
    assert detect_format(7, name="qa") is not None


@pytest.mark.parametrize("name", all_format_names()[1:])
def test_every_name_of_a_form_leads_to_it(name: str) -> None:
    form = detect_format({}, name=name)
    assert form is not None
    assert form.name == name or name in FORMAT_NAMES[form.name]


def test_no_word_names_two_forms() -> None:
    names = all_format_names()
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


COLUMNS = {"prompt": "my_question", "completion": "my_answer"}


def test_columns_are_read_by_their_own_names_and_named_so_in_mistakes() -> None:
    row = {"my_question": "Where?", "my_answer": "There.", "prompt": "an old one", "text": "a"}
    for name in ("auto", "prompt_completion"):
        form = detect_format(row, name=name, columns=COLUMNS)
        assert form is not None
        conversation, mistakes = read_row(row, form, HERE)
        assert mistakes == []
        assert isinstance(conversation, Conversation)
        assert [turn.content for turn in conversation.turns] == ["Where?", "There."]
        assert unused_keys(row, form) == {"prompt", "text"}
        assert read_row({"my_question": "", "my_answer": "a"}, form, HERE)[1] == ["my_question is empty."]
        told = read_row({"my_question": "a", "my_anser": "b"}, form, HERE)[1]
        assert told[0].startswith("'my_answer' is missing; ")
        assert told[0].endswith("Did you mean my_anser?")


def test_columns_rename_lists_of_turns_too() -> None:
    row = {"dialogue": MESSAGES[:1]}
    form = detect_format(row, columns={"messages": "dialogue"})
    assert form is not None
    assert read_row({"dialogue": [{"role": "usr"}]}, form, HERE)[1][0].startswith("dialogue[0].role='usr' is no role.")


def test_columns_may_bear_the_names_of_another_tool() -> None:
    row = {"q": "Translate.", "more": "phare", "a": "lighthouse"}
    form = detect_format(row, name="alpaca", columns={"prompt": "q", "query": "more", "response": "a"})
    assert form is not None
    conversation, _ = read_row(row, form, HERE)
    assert isinstance(conversation, Conversation)
    assert [turn.content for turn in conversation.turns] == ["Translate.\n\nphare", "lighthouse"]


def test_a_row_with_other_columns_than_those_given_has_no_form() -> None:
    assert detect_format({"text": "a"}, columns=COLUMNS) is None
    told = unknown_form({"text": "a"}, COLUMNS)
    assert "With data.columns={'prompt': 'my_question', 'completion': 'my_answer'} Use one of: " in told


def test_columns_of_no_form_are_told_with_the_keys_that_there_are() -> None:
    assert column_mistakes("auto", None) == column_mistakes("auto", COLUMNS) == []
    [told] = column_mistakes("qa", {"question": "q", "anser": "a"})
    assert told == (
        "data.columns.anser=a is not read: data.format=qa does not have a key anser. Did you mean answer? "
        "Its keys: question, answer, system or tools."
    )
    [told] = column_mistakes("auto", {"promt": "q"})
    assert told.startswith("data.columns.promt=q is not read: no form of rows has a key promt. Did you mean prompt?")


def test_a_row_without_form_is_told_the_sets_of_keys() -> None:
    told = unknown_form({"mesages": []})
    assert told.startswith("the keys 'mesages' are no known form. Use one of: chosen + rejected, src + response + sort")
    assert told.endswith("or say with data.format and data.columns which column is which. Did you mean messages?")
    assert "tokens + tags" in told
    assert unknown_form([]).startswith("a row must be a JSON object with one of these sets of keys: ")
    assert "the keys of an empty object" in unknown_form({})
    many = {f"{number}" + "x" * 10_000: 1 for number in range(10_000)}
    assert len(unknown_form(many)) < 2_000
    form = detect_format({"text": "a"})
    assert form is not None
    assert read_row(many, form, HERE)[1] == ["'text' is missing; the first row has the form text."]


def test_a_row_of_another_form_than_the_first_is_a_mistake() -> None:
    form = detect_format({"question": "Where?", "answer": "There."})
    assert form is not None
    assert read_row({"question": "Where?", "anser": "x"}, form, HERE)[1] == [
        "'answer' is missing; the first row has the form question/answer. Did you mean anser?"
    ]
    assert read_row([1], form, HERE)[1] == ["a row must be a JSON object, not a list."]


def test_what_cannot_be_trained_on_yet_says_so_with_what_can_be_done() -> None:
    told = {form.name: training_mistake(form, "data.train=x.jsonl") for form in FORMATS}
    assert {name for name, text in told.items() if text is None} == {
        "messages",
        "sharegpt",
        "alpaca",
        "paddlenlp",
        "adgen",
        "prompt/completion",
        "question/answer",
        "input/output",
        "text",
    }
    assert told["preference"] == (
        "data.train=x.jsonl: rows of the form preference (chosen, rejected) are for preference training, which Pharos "
        "cannot do yet; `pharos data check` reads them. To train on the better answers alone, set "
        "data.format=prompt/completion and data.columns={completion: chosen}."
    )
    assert "set data.format to messages, sharegpt, alpaca or prompt/completion" in str(told["kto"])
    assert "are for token classification, which Pharos cannot do yet" in str(told["bio"])


def test_the_remedy_for_preferences_works() -> None:
    row = {"prompt": "Where?", "chosen": "There.", "rejected": "No."}
    form = detect_format(row, name="prompt/completion", columns={"completion": "chosen"})
    assert form is not None
    conversation, _ = read_row(row, form, HERE)
    assert isinstance(conversation, Conversation)
    assert conversation.turns[1].content == "There."
    assert unused_keys(row, form) == {"rejected"}


def test_every_row_of_the_table_in_the_readme_is_of_the_form_that_it_shows() -> None:
    readme = (Path(__file__).parents[4] / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([a-z/-]+)` \| `(\{.*\})` \| (.+) \|$", readme, re.MULTILINE)
    assert {name for name, _, _ in table} == {form.name for form in FORMATS} - {"bio", "bmes", "bioes", "bilou"}
    for name, text, trained in table:
        row = json.loads(text)
        form = detect_format(row)
        assert form is not None
        assert form.name == name
        assert read_row(row, form, HERE)[1] == []
        assert (training_mistake(form, "data.train") is not None) == (trained == "not yet")


def test_files_are_read_as_the_spec_says_and_refused_for_training_where_that_cannot_be(
    tmp_path: Path, arguments: dict
) -> None:
    rows = [{"prompt": f"Where {i}?", "chosen": "There.", "rejected": "No."} for i in range(60)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSpec(train="train.jsonl", eval_fraction=0.2, test_fraction=0.2)
    assert len(read_rows(find_sources(spec, root=tmp_path)["train"]).rows) == 60
    with pytest.raises(DataError, match="data.train=train.jsonl: rows of the form preference .* cannot do yet"):
        prepare(spec, **arguments)
    chosen = spec.model_copy(update={"format": "prompt_completion", "columns": {"completion": "chosen"}})
    prepared = prepare(chosen, **arguments)
    assert prepared.facts.format == "prompt/completion"
    assert prepared.warnings == ("train.jsonl: 'rejected' of 60 rows is not used",)
    wrong = spec.model_copy(update={"columns": {"complition": "chosen"}})
    with pytest.raises(DataError, match="data.columns.complition=chosen is not read: .*Did you mean completion"):
        find_sources(wrong, root=tmp_path)
