"""Files are found as the spec names them, and every mistake in them is located."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.data_rows import read_rows

from pharos.data.load import Notes
from pharos.data.readers import Mistake
from pharos.data.sources import SUFFIXES, content_digest, find_sources
from pharos.errors import DataError
from pharos.spec.model import DataSpec

ROW = {"question": "Where?", "answer": "There."}


def names(root: Path, train: str | list[str]) -> list[str]:
    return [file.name for file in find_sources(DataSpec(train=train), root=root)["train"].files]


def mistakes_of(root: Path, name: str = "train.jsonl") -> list[str]:
    return read_rows(find_sources(DataSpec(train=name), root=root)["train"]).mistakes


def test_a_name_a_list_a_glob_and_a_directory_lead_to_files(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    for name in ("part/b.jsonl", "part/a.jsonl", "part/c.json", "part/notes.txt", "[x].jsonl"):
        write_rows(name, [ROW])
    assert names(tmp_path, "part/a.jsonl") == ["part/a.jsonl"]
    assert names(tmp_path, ["part/b.jsonl", "part/a.jsonl"]) == ["part/b.jsonl", "part/a.jsonl"]
    assert names(tmp_path, "part/*.jsonl") == ["part/a.jsonl", "part/b.jsonl"]
    assert names(tmp_path, "part") == ["part/a.jsonl", "part/b.jsonl", "part/c.json"]
    assert names(tmp_path, "[x].jsonl") == ["[x].jsonl"]
    assert names(tmp_path, ["part", "part/*.jsonl"]) == ["part/a.jsonl", "part/b.jsonl", "part/c.json"]
    assert names(tmp_path, str(tmp_path / "part/a.jsonl")) == [str(tmp_path / "part/a.jsonl")]


def test_every_name_that_leads_to_no_file_is_told_at_once(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [ROW])
    (tmp_path / "empty").mkdir()
    spec = DataSpec(train=["trian.jsonl", "empty", "*.csv", "away/x.jsonl"], eval="builtin:docker", test=[])
    with pytest.raises(DataError) as error:
        find_sources(spec, root=tmp_path)
    lines = error.value.message.splitlines()
    assert lines == [
        f"data.train='trian.jsonl': no such file in {tmp_path}. Did you mean train.jsonl?",
        f"data.train='empty': the directory {tmp_path}/empty holds no file of {', '.join(SUFFIXES)}.",
        f"data.train='*.csv' matches no file in {tmp_path}.",
        f"data.train='away/x.jsonl': there is no directory {tmp_path}/away.",
        "data.eval='builtin:docker' is not built in. builtin:docker-commands is.",
        "data.test=[] names no file.",
    ]


def test_the_built_in_rows_bring_their_own_eval_and_test(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    sources = find_sources(DataSpec(train="builtin:docker-commands"), root=tmp_path)
    counts = {split: len(read_rows(source).rows) for split, source in sources.items()}
    assert counts == {"train": 3000, "eval": 300, "test": 300}
    write_rows("eval.jsonl", [ROW])
    sources = find_sources(DataSpec(train="builtin:docker-commands", eval="eval.jsonl"), root=tmp_path)
    assert len(read_rows(sources["eval"]).rows) == 1


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROW) + "\n" + json.dumps(ROW),
        "\ufeff" + json.dumps(ROW) + "\r\n\r\n" + json.dumps(ROW) + "\n\n",
        json.dumps([ROW, ROW], indent=1),
        "\ufeff \n" + json.dumps([ROW, ROW]),
    ],
)
def test_lines_and_arrays_are_read_with_and_without_a_byte_order_mark(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.json").write_bytes(content.encode())
    found = read_rows(find_sources(DataSpec(train="train.json"), root=tmp_path)["train"])
    assert found.mistakes == []
    assert [row.turns[1].content for row in found.rows] == ["There.", "There."]
    assert found.formats == ("question/answer",)
    places = [str(row.origin) for row in found.rows]
    assert places in (
        ["train.json:1", "train.json:2"],
        ["train.json:1", "train.json:3"],
        ["train.json[0]", "train.json[1]"],
    )


def test_a_line_separator_inside_a_text_does_not_end_its_row(tmp_path: Path) -> None:
    row = {"question": "Where\u2028is it?", "answer": "There."}
    (tmp_path / "train.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert mistakes_of(tmp_path) == []


def test_all_mistakes_of_a_file_are_located_and_good_rows_between_them_are_not(tmp_path: Path) -> None:
    lines = [json.dumps(ROW), '{"question": "Where?" "answer": 1}', json.dumps({"question": "", "answer": "x"}), "7"]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    assert mistakes_of(tmp_path) == [
        "train.jsonl:2:23: not JSON: Expecting ',' delimiter. Write one object a line.",
        "train.jsonl:3: question is empty.",
        "train.jsonl:4: a row must be a JSON object, not a number.",
    ]


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"", "train.jsonl: the file holds no row."),
        (b"\n \n", "train.jsonl: the file holds no row."),
        (b"[]", "train.jsonl: the file holds no row."),
        (b'[{"question": "a",\n "answer": }]', "train.jsonl:2:12: not JSON: Expecting value."),
        (b'{"question": "a", "answer": "b"}\n{"answer": "\xff"}', "train.jsonl:2: not UTF-8: byte 0xff at offset 45 "),
        ("[1]".encode("utf-16"), "train.jsonl:1: not UTF-8: byte 0xff at offset 0 of the file. Convert it to UTF-8."),
        (b'{"mesages": []}', "train.jsonl:1: the keys 'mesages' are no known form."),
        (b'{"mesages": []}', "Did you mean messages?"),
        (b"3\n", "train.jsonl:1: a row must be a JSON object"),
        (b"[" * 100_000, "not JSON: RecursionError"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, mistake: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    [told] = mistakes_of(tmp_path)
    assert mistake in told


def test_the_first_twenty_mistakes_are_shown_and_the_rest_counted() -> None:
    notes = Notes()
    notes.raise_mistakes(0)
    places = [f"train.jsonl:{row}" for row in range(1, 34)]
    notes.add_mistakes([Mistake(text=f"{place}: answer is empty.", row=place) for place in places])
    with pytest.raises(DataError) as error:
        notes.raise_mistakes(0)
    lines = error.value.message.splitlines()
    assert lines[19] == "train.jsonl:20: answer is empty."
    assert lines[20:] == ["... and 13 more mistakes like these."]


def test_keys_that_no_row_uses_are_a_warning_with_their_count(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [ROW | {"history": []}, ROW | {"history": [], "id": 1}])
    found = read_rows(find_sources(DataSpec(train="train.jsonl"), root=tmp_path)["train"])
    assert found.warnings == ("train.jsonl: 'history' of 2 rows is not used",)


def test_the_digest_changes_with_content_alone(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    path = write_rows("train.jsonl", [ROW])
    source = find_sources(DataSpec(train="train.jsonl"), root=tmp_path)["train"]
    before = content_digest(source)
    path.touch()
    assert content_digest(source) == before
    path.write_text(path.read_text() + " ")
    assert content_digest(source) != before
