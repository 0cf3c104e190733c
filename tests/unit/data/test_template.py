"""Templates are found by name or path, render what they should, and say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pharos.data.formats import Conversation, Origin, Turn
from pharos.data.template import Template, choose_template, prompt_and_reference
from pharos.errors import BaseModelError, DataError
from pharos.spec.rules import BUILTIN_TEMPLATES

TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def talk(*contents: str, system: str | None = None) -> Conversation:
    """User and assistant by turns, after a system turn if there is one."""
    turns = [Turn(role="assistant" if index % 2 else "user", content=text) for index, text in enumerate(contents)]
    first = [] if system is None else [Turn(role="system", content=system)]
    return Conversation(turns=(*first, *turns), origin=Origin(file="train.jsonl", row=1))


def of(source: str) -> Template:
    return Template(name="tokenizer", source=source, special_tokens=TOKENS)


def plain(directory: Path, *, adds_bos: bool = False) -> Template:
    return choose_template("plain", root=directory, directory=directory, special_tokens=TOKENS, adds_bos=adds_bos)


def test_a_prompt_is_all_before_the_last_answer(tmp_path: Path) -> None:
    conversation = talk("Where?", "There.", "When?", "Now.", "Why?")
    prompt, reference = prompt_and_reference(of(CHATML), conversation)
    assert prompt.endswith("There.<|im_end|>\n<|im_start|>user\nWhen?<|im_end|>\n<|im_start|>assistant\n")
    assert reference == "Now."
    assert prompt_and_reference(plain(tmp_path), talk("Where?", "There.")) == ("Where?\n", "There.")


def test_auto_takes_the_tokenizers_template_and_falls_back_to_plain(tmp_path: Path) -> None:
    choose = {"root": tmp_path, "directory": tmp_path, "special_tokens": TOKENS}
    assert choose_template("auto", **choose).name == "plain"
    with pytest.raises(DataError, match="has no chat template .*Use data.template=plain or auto, or another"):
        choose_template("tokenizer", **choose)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "one"}))
    assert choose_template("auto", **choose).source == "one"
    assert choose_template("plain", **choose).name == "plain"
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "two"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert choose_template("tokenizer", **choose).source == "two"
    config.write_text(json.dumps({"chat_template": named[:1]}))
    with pytest.raises(BaseModelError, match="holds tool_use but none named default"):
        choose_template("auto", **choose)
    (tmp_path / "chat_template.jinja").write_text("three")
    assert choose_template("auto", **choose).source == "three"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('only users here') }}", "only users here"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ missing.field }}", "'missing' is undefined"),
        ("{{ messages.append(1) }}", "of 'list' object is unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_refuses_a_row_says_why_in_its_own_words(source: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"chat template refuses this row: .*{reason}"):
        of(source).render(talk("Where?", "There.").turns)


def test_a_malformed_template_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}\n{% endif %}")
    with pytest.raises(BaseModelError, match="chat template is malformed: line 2: .*data.template=plain"):
        choose_template("auto", root=tmp_path, directory=tmp_path, special_tokens=TOKENS)


def test_a_template_that_writes_the_date_is_known() -> None:
    template = of("{{ strftime_now('%Y') }}")
    assert template.writes_the_date
    assert template.render(talk("Where?", "There.").turns).isdigit()
    assert not of(CHATML).writes_the_date


def test_a_template_may_be_a_file_beside_the_sweep(tmp_path: Path) -> None:
    choose = {"root": tmp_path, "directory": tmp_path / "base", "special_tokens": TOKENS}
    (tmp_path / "my.jinja").write_text("\ufeffmine", encoding="utf-8")
    template = choose_template("./my.jinja", **choose)
    assert (template.name, template.source, template.title) == ("./my.jinja", "mine", "the template ./my.jinja")
    assert choose_template(str(tmp_path / "my.jinja"), **choose).source == "mine"
    with pytest.raises(DataError, match=r"data.template=./no.jinja: .*no.jinja is not there. Paths are relative to"):
        choose_template("./no.jinja", **choose)
    (tmp_path / "base").mkdir()
    with pytest.raises(DataError, match=r"data.template=./base: .* cannot be read: Is a directory"):
        choose_template("./base", **choose)
    (tmp_path / "my.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"my.jinja cannot be read: it is not UTF-8 text"):
        choose_template("./my.jinja", **choose)
    (tmp_path / "my.jinja").write_text("\n{{ a b }}")
    with pytest.raises(DataError, match=r"=./my.jinja: the file is malformed: line 2: .*data.template=plain"):
        choose_template("./my.jinja", **choose)


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_built_in_templates_begin_with_bos_once_where_the_tokenizer_does(
    tmp_path: Path, name: str, adds_bos: bool
) -> None:
    template = choose_template(name, root=tmp_path, directory=tmp_path, special_tokens=TOKENS, adds_bos=adds_bos)
    text = template.render(talk("Where?", "There.").turns)
    assert text.startswith("<bos>") == (adds_bos or name in ("llama2", "llama3", "mistral"))
    assert text.count("<bos>") <= 1


@pytest.mark.parametrize(
    "source",
    ["{% set ns = namespace(__class__=1) %}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{{ dict.mro() }}"],
)
def test_a_template_cannot_reach_into_python(source: str) -> None:
    with pytest.raises(DataError, match="refuses this row"):
        of(source).render(talk("Where?", "There.").turns)
