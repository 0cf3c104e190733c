"""What a person reads about a wrong sweep file: every `messages/*.yaml` with the exact text beside it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pharos.errors import SpecError
from pharos.spec.load import load_spec

MESSAGES = Path(__file__).parent / "messages"
FILES = sorted(MESSAGES.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_wrong_file_gets_exactly_these_messages(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MESSAGES)
    with pytest.raises(SpecError, match=file.name) as caught:
        load_spec(Path(file.name))
    assert caught.value.message.splitlines() == file.with_suffix(".txt").read_text().splitlines()


def test_every_message_names_a_place_and_none_speaks_of_the_schema_library() -> None:
    texts = [file.with_suffix(".txt").read_text() for file in FILES]
    assert len(FILES) == len(list(MESSAGES.glob("*.txt"))) >= 20
    for line in "".join(texts).splitlines():
        location, _, message = line.partition(": ")
        assert location.split(":")[0].endswith(".yaml")
        assert message
        for jargon in ("pydantic", "Input should", "validation", "Extra inputs", "dict", "https://", "Traceback"):
            assert jargon not in line


def test_messages_come_in_the_order_of_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MESSAGES)
    for file in FILES:
        lines = [line.split(":")[1] for line in file.with_suffix(".txt").read_text().splitlines()]
        numbers = [int(line) for line in lines if line.isdecimal()]
        assert numbers == sorted(numbers), file.name


def test_a_message_survives_pickling() -> None:
    with pytest.raises(SpecError, match="unknown_keys") as caught:
        load_spec(MESSAGES / "unknown_keys.yaml")
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
