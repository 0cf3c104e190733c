"""Elements of an array are cut out as json would read them, however the file falls into blocks."""

from __future__ import annotations

import io
import json
import random

import pytest

from pharos.data import json_arrays
from pharos.data.json_arrays import array_elements, parse_json

ELEMENTS = [
    {"a": "x" * 50, "b": [1, -2.5e-7, None, True]},
    '灯台 \\ " 🗼 ]',
    12345678901234567890,
    [],
    {},
    "",
    [[1], [2]],
]


def read(content: bytes) -> tuple[list[str], list[str]]:
    mistakes: list[str] = []
    return list(array_elements(io.BytesIO(content), mistakes, max_characters=10_000)), mistakes


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("begin", ["", " \n", "\ufeff", "\ufeff\n "])
def test_elements_are_those_of_the_array(
    monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None, begin: str
) -> None:
    monkeypatch.setattr(json_arrays, "READ_BYTES", block)
    text = begin + json.dumps(ELEMENTS, indent=indent, ensure_ascii=False) + "\n"
    elements, mistakes = read(text.encode())
    assert mistakes == []
    assert [json.loads(element) for element in elements] == ELEMENTS


def test_a_number_that_a_block_cuts_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_arrays, "READ_BYTES", 3)
    assert read(b"[123456,78]")[0] == ["123456", "78"]


@pytest.mark.parametrize("block", [5, 1 << 20])
def test_a_malformed_array_is_told_as_json_tells_it(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(json_arrays, "READ_BYTES", block)
    draw = random.Random(0)
    whole = json.dumps(ELEMENTS, indent=1)
    for _ in range(300):
        at = draw.randrange(1, len(whole))
        text = whole[:at] + draw.choice('",:[]{}x\n') + whole[at + 1 :]
        _, error = parse_json(text)
        expected = [] if error is None else [f":{error.lineno}:{error.colno}: not JSON: {error.msg}."]
        assert read(text.encode())[1] == expected


def test_what_comes_before_a_mistake_is_read() -> None:
    elements, mistakes = read(b'[{"a": 1}, {"b": 2} {"c": 3}]')
    assert elements == ['{"a": 1}', '{"b": 2}']
    assert mistakes == [":1:21: not JSON: Expecting ',' delimiter."]


def test_a_mistake_early_in_a_large_file_ends_the_reading_there() -> None:
    stream = io.BytesIO(b'[{"a": nothing}, ' + b'{"a": 1}, ' * 1_000_000)
    assert list(array_elements(stream, [], max_characters=1 << 28)) == []
    assert stream.tell() <= 2 * json_arrays.READ_BYTES


def test_an_element_beyond_the_limit_is_refused() -> None:
    stream = io.BytesIO(b'["' + b"x" * 9_000_000)
    mistakes: list[str] = []
    assert list(array_elements(stream, mistakes, max_characters=1 << 21)) == []
    assert mistakes == [":1:2: not JSON: a row of more than 2 MiB."]
    assert stream.tell() < 9_000_000
