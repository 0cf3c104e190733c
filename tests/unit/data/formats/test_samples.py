"""Every form has a sample file, written by hand; it is read as what stands in the expected files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.formats.conftest import WORDS

from pharos.data.formats import FORMATS, Origin, Row, Turn, conll_rows, detect_format, read_row, unused_keys
from pharos.data.prepare import open_split, prepare
from pharos.data.template import choose_template
from pharos.data.tokenise import load_tokenizer, tokenise
from pharos.spec.format_names import FORMAT_NAMES
from pharos.spec.model import DataSpec

SAMPLES = Path(__file__).parents[1] / "samples"
TOKENS = json.loads((SAMPLES / "expected_tokens.json").read_text(encoding="utf-8"))
ROWS = json.loads((SAMPLES / "expected_rows.json").read_text(encoding="utf-8"))
FILES = {file.stem: file for file in SAMPLES.iterdir() if not file.name.startswith("expected")}
# The form that the first row shows, where the file is not called like its form.
FORM_OF = {
    "baichuan2": "sharegpt",
    "prompt_completion": "prompt/completion",
    "question_answer": "question/answer",
    "input_output": "input/output",
    "preference_messages": "preference",
    "preference_sharegpt": "preference",
    "paddlenlp_preference": "paddlenlp-preference",
    "kto_messages": "kto",
    "kto_alpaca": "kto",
    "bio": "tagged",
    "bmes": "tagged",
}


def items(name: str) -> Iterator[tuple[Any, Origin]]:
    """The rows of a sample as JSON values, with their places."""
    file = FILES[name]
    if file.suffix == ".conll":
        with file.open(encoding="utf-8") as lines:
            yield from ((row, Origin(file=file.name, row=line)) for row, line in conll_rows(lines))
    elif file.suffix == ".json":
        for index, row in enumerate(json.loads(file.read_text(encoding="utf-8"))):
            yield row, Origin(file=file.name, row=index, is_line=False)
    else:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            yield json.loads(line), Origin(file=file.name, row=number)


def read(name: str) -> list[Row]:
    """The rows of a sample in the form that its first row shows, with nothing wrong and nothing left unread."""
    found = list(items(name))
    form = detect_format(found[0][0])
    assert form is not None
    assert form.name == FORM_OF.get(name, name)
    rows = []
    for item, origin in found:
        row, mistakes = read_row(item, form, origin)
        assert mistakes == []
        assert type(row) is form.kind
        assert unused_keys(item, form) == set()
        rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """Turns as [role, content], tuples as lists."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return [value.role, value.content] if isinstance(value, Turn) else value


@pytest.mark.parametrize("name", TOKENS)
def test_what_trains_becomes_exactly_these_tokens_with_this_mask(name: str, words_dir: Path) -> None:
    tokenizer = load_tokenizer(words_dir)
    template = choose_template("auto", root=words_dir, directory=words_dir, special_tokens=tokenizer.special_tokens)
    mistakes: list[str] = []
    rows = list(tokenise(read(name), template, tokenizer, mistakes, train_on="assistant"))
    assert mistakes == []
    found = [{"ids": row.tokens.tolist(), "trained": "".join(map(str, row.trained.astype(int)))} for row in rows]
    assert found == TOKENS[name]
    assert all(WORDS.index("<unk>") not in row["ids"] for row in found)


@pytest.mark.parametrize("name", ROWS)
def test_what_does_not_train_yet_is_read_as_exactly_these_values(name: str) -> None:
    for row, expected in zip(read(name), ROWS[name], strict=True):
        found = {field.name: plain(getattr(row, field.name)) for field in fields(row)}
        found["row"] = row.origin.row
        assert {key: found[key] for key in expected} == expected


def test_every_form_and_every_sample_is_covered() -> None:
    assert {*TOKENS, *ROWS} == set(FILES)
    read_here = {FORM_OF.get(name, name) for name in FILES} | {"bio", "bmes", "bioes", "bilou"}
    assert read_here == {form.name for form in FORMATS} == set(FORMAT_NAMES)


def test_rows_that_say_the_same_in_any_form_have_one_digest_and_others_do_not() -> None:
    first = {name: read(name)[0].digest for name in FILES}
    assert first["adgen"] == first["paddlenlp"]
    assert read("alpaca")[1].digest == first["prompt_completion"]
    assert first["kto"] == first["kto_messages"] != first["prompt_completion"]
    assert first["preference_messages"] == first["paddlenlp_preference"] != first["preference"]
    with_tools, without = read("messages")[2], read("question_answer")[0]
    fewer, other = replace(with_tools, tools=()), replace(with_tools, tools=({"name": "other"},))
    assert len({row.digest for row in (with_tools, fewer, other, without)}) == 4
    turns = tuple(replace(turn, tool_calls=()) for turn in with_tools.turns)
    assert replace(with_tools, turns=turns).digest != with_tools.digest


def test_texts_are_prepared_and_read_back_whole_with_their_end_token(words_dir: Path, tmp_path: Path) -> None:
    texts = [" ".join([WORDS[11 + number % 19]] * (number % 5 + 1)) for number in range(60)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    spec = DataSpec(train="train.jsonl", eval_fraction=0.2, test_fraction=0.2)
    prepared = prepare(spec, root=tmp_path, tokenizer_dir=words_dir, tokenizer_digest="0", cache_dir=tmp_path / "cache")
    assert prepared.facts.format == "text"
    found = []
    for split in ("train", "eval", "test"):
        rows = open_split(prepared.directory, split)
        for index in range(len(rows)):
            tokens, trained = rows.row(index)
            assert trained.all()
            assert tokens[-1] == WORDS.index("<stop>")
            found.append(" ".join(WORDS[token] for token in tokens[:-1]))
    assert sorted(found) == sorted(texts)
