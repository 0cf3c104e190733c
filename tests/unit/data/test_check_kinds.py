"""Rows that cannot be trained on yet are checked and shown all the same: pairs, judged answers, tagged tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pharos.data.check_files import Wanted, check_files
from pharos.data.check_report import CheckReport, obstacles, warnings
from pharos.data.show import ShownRow
from pharos.spec.model import SweepSpec

PAIR = {"prompt": "Where?", "chosen": "On the cliff.", "rejected": "There\x07."}
JUDGED = {"prompt": "Where?", "completion": "There.", "label": False}
TAGGED = {"tokens": ["Grace", "Darling", "lived"], "tags": ["B-PER", "I-PER", "O"]}
TEXT = {"text": "The lighthouse stands on the cliff."}


@pytest.fixture
def checked(
    tmp_path: Path, write_tokenizer: Callable[..., Path], write_rows: Callable[..., Path]
) -> Callable[..., tuple[CheckReport, ShownRow]]:
    """The report of a file of one row, and that row as it is shown."""
    base = write_tokenizer()

    def check(row: dict[str, Any], *, is_sweep: bool = False) -> tuple[CheckReport, ShownRow]:
        write_rows("train.jsonl", [row])
        report, [shown] = check_files(
            SweepSpec.model_validate({"name": "x", "base": "b", "data": {"train": "train.jsonl"}}),
            root=tmp_path,
            tokenizer_dir=base,
            tokenizer_name="base",
            is_divided=is_sweep,
            wanted=Wanted(places=("train.jsonl:1",)),
        )
        return report, shown

    return check


def marked(shown: ShownRow) -> list[tuple[str, str]]:
    """The title of each part, and what is told apart in it."""
    return [(part.title, "".join(piece.text for piece in part.pieces if piece.trained)) for part in shown.parts]


def test_a_preference_is_shown_as_its_two_answers(checked: Callable[..., Any]) -> None:
    report, shown = checked(PAIR)
    assert marked(shown) == [("chosen", "On the cliff.<|im_end|>"), ("rejected", "There\x07.<|im_end|>")]
    assert report.characters[0].first == "train.jsonl:1, rejected, turn 0"
    assert report.splits[0].num_turns == 3
    assert sum(report.splits[0].histogram) == 2


def test_a_judged_answer_is_shown_with_its_label(checked: Callable[..., Any]) -> None:
    assert marked(checked(JUDGED)[1]) == [("not wanted", "There.<|im_end|>")]
    assert marked(checked(JUDGED | {"label": True})[1]) == [("wanted", "There.<|im_end|>")]


def test_tagged_tokens_are_shown_with_their_tags_and_what_is_unusual(checked: Callable[..., Any]) -> None:
    _, shown = checked(TAGGED)
    assert marked(shown) == [("", "Grace/B-PERDarling/I-PER")]
    assert "".join(piece.text for piece in shown.parts[0].pieces) == "Grace/B-PER Darling/I-PER lived"
    assert shown.parts[0].marked == "tagged"
    _, shown = checked({"tokens": ["Grace", "lived"], "tags": ["I-PER", "O"]})
    assert "I-PER" in shown.note


def test_a_text_is_trained_on_as_a_whole(checked: Callable[..., Any]) -> None:
    report, shown = checked(TEXT)
    assert report.verdict == "clean"
    assert marked(shown) == [("", TEXT["text"] + "<|text_end|>")]


@pytest.mark.parametrize("row", [PAIR | {"rejected": "There."}, JUDGED, TAGGED], ids=["preference", "kto", "tagged"])
def test_what_cannot_be_trained_on_is_a_warning_of_a_file_and_stops_a_sweep(
    checked: Callable[..., Any], row: dict[str, Any]
) -> None:
    report, _ = checked(row)
    assert obstacles(report) == []
    assert any("which Pharos cannot do yet" in warning.text for warning in warnings(report))
    report, _ = checked(row, is_sweep=True)
    assert report.verdict == "not usable"
    assert any("which Pharos cannot do yet" in text for text in obstacles(report))
