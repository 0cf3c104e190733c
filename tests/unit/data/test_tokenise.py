"""Texts become the tokens that transformers would make, with what trains marked, and long rows are dealt with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.conftest import CHATML, LLAMA_3

from pharos.data.formats import Conversation, Origin, Turn
from pharos.data.template import Template, choose_template
from pharos.data.tokenise import (
    Fitted,
    TextTokenizer,
    TokenRow,
    end_of_turn_id,
    fit_rows,
    load_tokenizer,
    refuse_long_rows,
    render_prompt,
    tokenise,
)
from pharos.errors import BaseModelError, DataError

CHATML_WITH_NEWLINES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% endfor %}"
)


def talk(*contents: str, system: str | None = None, row: int = 1) -> Conversation:
    turns = [Turn(role="assistant" if index % 2 else "user", content=text) for index, text in enumerate(contents)]
    first = [] if system is None else [Turn(role="system", content=system)]
    return Conversation(turns=(*first, *turns), origin=Origin(file="train.jsonl", row=row))


CONVERSATIONS = [
    talk("Where is the lighthouse?", "On the cliff."),
    talk("  Where?  ", "  There.  ", "And é, €, 灯台, 🗼?", "\n\nNorth of\n the harbour.\n", system="  Be brief. "),
    talk("Say <|im_end|> or <|eot|>.", "<|text_end|> it is."),
]


def loaded(directory: Path, kind: str = "auto") -> tuple[Template, TextTokenizer]:
    tokenizer = load_tokenizer(directory)
    special, adds_bos = tokenizer.special_tokens, tokenizer.adds_bos
    template = choose_template(kind, root=directory, directory=directory, special_tokens=special, adds_bos=adds_bos)
    return template, tokenizer


def rows_of(directory: Path, conversations: list[Conversation], kind: str = "auto") -> list[TokenRow]:
    mistakes: list[str] = []
    rows = list(tokenise(conversations, *loaded(directory, kind), mistakes, train_on="assistant"))
    assert mistakes == []
    return rows


def trained_text(row: TokenRow, tokenizer: TextTokenizer) -> str:
    return tokenizer.tokenizer.decode(row.tokens[row.trained].tolist(), skip_special_tokens=False)


@pytest.mark.parametrize("template", [CHATML, LLAMA_3])
def test_texts_tokens_and_prompts_are_those_of_transformers(
    write_tokenizer: Callable[..., Path], template: str
) -> None:
    from transformers import AutoTokenizer

    directory = write_tokenizer(template, adds_bos=template == LLAMA_3)
    reference = AutoTokenizer.from_pretrained(directory)
    ours, tokenizer = loaded(directory)
    for conversation, row in zip(CONVERSATIONS, rows_of(directory, CONVERSATIONS), strict=True):
        messages = [{"role": turn.role, "content": turn.content} for turn in conversation.turns]
        assert ours.render(conversation.turns) == reference.apply_chat_template(messages, tokenize=False)
        assert row.tokens.tolist() == reference.apply_chat_template(messages, return_dict=False)
        prompt, answer = render_prompt(conversation, ours, tokenizer)
        assert prompt.tolist() == reference.apply_chat_template(
            messages[:-1], add_generation_prompt=True, return_dict=False
        )
        assert answer == messages[-1]["content"]
        assert prompt.tolist() == row.tokens[: len(prompt)].tolist()


def test_special_tokens_of_the_config_are_one_token_each_as_in_transformers(
    write_tokenizer: Callable[..., Path],
) -> None:
    from transformers import AutoTokenizer

    ending = "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
    directory = write_tokenizer("{% for message in messages %}{{ message.content }}{% endfor %}" + ending)
    content = json.loads((directory / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<|text_end|>"]
    (directory / "tokenizer.json").write_text(json.dumps(content))
    [row] = rows_of(directory, CONVERSATIONS[:1])
    assert row.tokens[-1] == load_tokenizer(directory).eos_id
    messages = [{"role": turn.role, "content": turn.content} for turn in CONVERSATIONS[0].turns]
    reference = AutoTokenizer.from_pretrained(directory)
    assert row.tokens.tolist() == reference.apply_chat_template(messages, return_dict=False)


def test_trained_tokens_are_the_answers_to_the_end_of_their_markers(write_tokenizer: Callable[..., Path]) -> None:
    directory = write_tokenizer()
    _, tokenizer = loaded(directory)
    rows = rows_of(directory, CONVERSATIONS)
    assert trained_text(rows[0], tokenizer) == "On the cliff.<|im_end|>"
    assert trained_text(rows[1], tokenizer) == "  There.  <|im_end|>\n\nNorth of\n the harbour.\n<|im_end|>"
    newline = tokenizer.tokenizer.encode("\n").ids
    assert rows[0].tokens[-1:].tolist() == newline
    assert not rows[0].trained[-1]


def test_a_token_that_begins_before_the_answer_does_not_train(write_tokenizer: Callable[..., Path]) -> None:
    template = "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %} {% endif %}{% endfor %}"
    directory = write_tokenizer(template)
    _, tokenizer = loaded(directory)
    [row] = rows_of(directory, [talk("It", " stands")])  # "  stands": one space of the template, one of the answer
    assert tokenizer.tokenizer.decode(row.tokens.tolist()) == "It  stands"
    assert trained_text(row, tokenizer) == " stands"


def test_a_base_without_template_learns_its_end_token(write_tokenizer: Callable[..., Path]) -> None:
    directory = write_tokenizer(None, adds_bos=True)
    template, tokenizer = loaded(directory)
    assert template.name == "plain"
    [row] = rows_of(directory, CONVERSATIONS[:1])
    assert tokenizer.tokenizer.id_to_token(row.tokens[0]) == "<|begin|>"
    assert row.tokens[-1] == tokenizer.eos_id
    assert trained_text(row, tokenizer) == "On the cliff.<|text_end|>"


def test_rows_that_a_template_refuses_are_told_with_their_place(write_tokenizer: Callable[..., Path]) -> None:
    directory = write_tokenizer(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    )
    mistakes: list[str] = []
    conversations = [talk("a", "b"), talk("a", "b", system="c", row=7)]
    rows = list(tokenise(conversations, *loaded(directory), mistakes, train_on="assistant"))
    assert len(rows) == 1
    assert mistakes == ["train.jsonl:7: the tokenizer's chat template refuses this row: no system"]


def test_special_ids_come_from_the_tokenizer_and_then_from_the_base(write_tokenizer: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(write_tokenizer())
    ids = {token: tokenizer.tokenizer.token_to_id(token) for token in ("<|text_end|>", "<|eot|>", "<|end|>")}
    assert tokenizer.eos_id == tokenizer.pad_id == ids["<|text_end|>"]
    padded = write_tokenizer(name="padded", config={"pad_token": {"content": "<|end|>"}})
    assert load_tokenizer(padded).pad_id == ids["<|end|>"]

    bare = write_tokenizer(name="bare", config={"eos_token": None})
    with pytest.raises(BaseModelError, match="names no end-of-text token.*Add eos_token"):
        load_tokenizer(bare)
    both = [ids["<|eot|>"], ids["<|text_end|>"]]
    (bare / "config.json").write_text(json.dumps({"eos_token_id": both}))
    assert load_tokenizer(bare).eos_id == ids["<|eot|>"]
    assert load_tokenizer(bare).stop_ids == tuple(sorted(both))


def test_a_directory_without_tokenizer_json_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="no tokenizer.json. .*AutoTokenizer.from_pretrained.*save_pretrained"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BaseModelError, match="cannot be read as a tokenizer"):
        load_tokenizer(tmp_path)


def test_files_beside_the_tokenizer_that_are_no_json_are_named(write_tokenizer: Callable[..., Path]) -> None:
    directory = write_tokenizer()
    (directory / "tokenizer_config.json").write_text("{")
    with pytest.raises(BaseModelError, match="tokenizer_config.json is not JSON"):
        load_tokenizer(directory)


def test_a_tokenizer_that_truncates_or_pads_is_told_not_to(write_tokenizer: Callable[..., Path]) -> None:
    directory = write_tokenizer()
    plain = rows_of(directory, CONVERSATIONS)
    content = json.loads((directory / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|end|>",
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(content))
    assert [row.tokens.tolist() for row in rows_of(directory, CONVERSATIONS)] == [row.tokens.tolist() for row in plain]


def token_row(row: int, num_prompt: int, num_trained: int) -> TokenRow:
    trained = np.array([False] * num_prompt + [True] * num_trained)
    conversation = Conversation(turns=(), origin=Origin(file="train.jsonl", row=row))
    return TokenRow(tokens=np.arange(len(trained), dtype=np.int32), trained=trained, conversation=conversation)


ROWS = [token_row(1, 2, 3), token_row(2, 2, 6), token_row(3, 9, 4)]


def fit(rows: list[TokenRow], *, max_length: int, long_rows: str) -> Fitted:
    return fit_rows(rows, max_length=max_length, long_rows=long_rows, tokens_of=lambda conversations: [])


def test_truncating_cuts_on_the_right_and_skips_what_no_longer_trains() -> None:
    fitted = fit(ROWS, max_length=5, long_rows="truncate")
    assert [row.tokens.tolist() for row in fitted.rows] == [[0, 1, 2, 3, 4]] * 2
    assert fitted.rows[1].trained.tolist() == [False, False, True, True, True]
    assert [(str(origin), num_tokens) for origin, num_tokens in fitted.long] == [
        ("train.jsonl:2", 8),
        ("train.jsonl:3", 13),
    ]
    assert [(str(row.origin), row.num_tokens) for row in fitted.skipped] == [("train.jsonl:3", 13)]
    assert fitted.skipped[0].reason == "no trained token within data.max_length"


LONG = talk("Where is it?", "There it is.", "When was it?", "It was then.", "Why is it?", "So it is.", system="Be so.")


def fitted_at(directory: Path, conversation: Conversation, max_length: int, kind: str = "auto") -> Fitted:
    template, tokenizer = loaded(directory, kind)
    tokens_of = partial(tokenise, template=template, tokenizer=tokenizer, mistakes=[], train_on="assistant")
    return fit_rows(tokens_of([conversation]), max_length=max_length, long_rows="truncate", tokens_of=tokens_of)


@pytest.mark.parametrize("kind", ["auto", "plain", "llama2", "baichuan2"])
def test_a_long_row_becomes_the_row_of_as_many_first_turns_as_fit(
    write_tokenizer: Callable[..., Path], kind: str
) -> None:
    directory = write_tokenizer()
    shorter = [replace(LONG, turns=LONG.turns[:count]) for count in (3, 5, 7)]
    rows = rows_of(directory, shorter, kind)
    lengths = [len(row.tokens) for row in rows]
    for max_length in range(1, lengths[-1] + 2):
        fitted = fitted_at(directory, LONG, max_length, kind)
        num_fitting = sum(length <= max_length for length in lengths)
        assert bool(fitted.long) == (num_fitting < 3)
        if num_fitting:
            expected, [row] = rows[num_fitting - 1], fitted.rows
            assert (row.tokens.tolist(), row.trained.tolist()) == (expected.tokens.tolist(), expected.trained.tolist())
            assert row.conversation == shorter[num_fitting - 1]
            assert (len(fitted.cut_at_turn), len(fitted.cut_inside)) == (num_fitting < 3, 0)
        elif fitted.rows:
            assert fitted.rows[0].tokens.tolist() == rows[0].tokens[:max_length].tolist()
            assert (len(fitted.cut_at_turn), len(fitted.cut_inside)) == (0, 1)
        else:
            assert fitted.skipped[0].reason == "no trained token within data.max_length"


def test_a_question_without_an_answer_is_the_first_to_be_cut_off(write_tokenizer: Callable[..., Path]) -> None:
    directory = write_tokenizer()
    asked = replace(LONG, turns=(*LONG.turns, Turn(role="user", content="And then?")))
    [whole, answered] = rows_of(directory, [asked, LONG])
    fitted = fitted_at(directory, asked, len(whole.tokens) - 1)
    assert fitted.rows[0].tokens.tolist() == answered.tokens.tolist()
    assert fitted.cut_at_turn == [asked.origin]


def test_a_system_turn_is_never_cut_away_and_a_row_that_it_fills_is_skipped(
    write_tokenizer: Callable[..., Path],
) -> None:
    conversation = replace(LONG, turns=(Turn(role="system", content="Be so. " * 50), *LONG.turns[1:]))
    fitted = fitted_at(write_tokenizer(), conversation, 60)
    assert fitted.rows == []
    assert [row.reason for row in fitted.skipped] == ["no trained token within data.max_length"]


def test_skipping_leaves_long_rows_out_and_names_them() -> None:
    fitted = fit(ROWS, max_length=8, long_rows="skip")
    assert [len(row.tokens) for row in fitted.rows] == [5, 8]
    assert [str(row.origin) for row in fitted.skipped] == ["train.jsonl:3"]


def test_long_rows_are_refused_all_together_with_the_length_that_would_hold_them() -> None:
    refuse_long_rows([], 5)
    with pytest.raises(DataError) as error:
        refuse_long_rows(fit(ROWS, max_length=5, long_rows="error").long, 5)
    first, *lines = error.value.message.splitlines()
    assert "data.max_length=5, but 2 rows are longer. Set data.max_length=13, or data.long_rows=truncate" in first
    assert lines == ["train.jsonl:2: 8 tokens", "train.jsonl:3: 13 tokens"]


def test_the_token_that_ends_a_turn_is_known_where_the_template_writes_one(
    write_tokenizer: Callable[..., Path],
) -> None:
    directory = write_tokenizer()
    _, tokenizer = loaded(directory)
    [row] = rows_of(directory, CONVERSATIONS[:1])
    assert end_of_turn_id(row, tokenizer) == tokenizer.tokenizer.token_to_id("<|im_end|>")
    [marked] = rows_of(write_tokenizer(CHATML_WITH_NEWLINES, name="with_newlines"), CONVERSATIONS[:1])
    assert tokenizer.tokenizer.id_to_token(marked.tokens[-1]) == "Ċ"
    assert marked.trained[-1]
    assert end_of_turn_id(marked, tokenizer) == tokenizer.tokenizer.token_to_id("<|im_end|>")
    cut = fit([row], max_length=len(row.tokens) - 2, long_rows="truncate").rows[0]
    assert end_of_turn_id(cut, tokenizer) is None
