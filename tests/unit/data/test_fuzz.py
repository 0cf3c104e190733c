"""Damaged files are read or refused with a place, never worse. `tests/benchmarks/data_fuzz.py` runs ten thousand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.benchmarks.data_fuzz import MUTATIONS, fuzz, missing_place

from pharos.data import load


def test_three_hundred_damaged_files_crash_nothing_and_are_named_with_a_place(
    tmp_path: Path, write_tokenizer: Callable[..., Path]
) -> None:
    outcome = fuzz(tmp_path, tokenizer_dir=write_tokenizer(), num_files=300, seed=7)
    assert outcome.failures == []
    damages = {what.partition(" of ")[0] for what in outcome.counts}
    assert damages == set(MUTATIONS)
    assert any(what.endswith(": read") for what in outcome.counts)


def test_the_fuzzer_sees_a_crash_and_a_report_without_a_place(
    tmp_path: Path, write_tokenizer: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_place("rows.jsonl:3: answer is empty.", "rows.jsonl") is None
    assert missing_place("answer is empty.", "rows.jsonl") is not None
    assert missing_place("rows.jsonl: answer is empty.", "rows.jsonl") is not None

    def crash(*arguments: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(load, "read_row", crash)
    outcome = fuzz(tmp_path, tokenizer_dir=write_tokenizer(), num_files=5, seed=7)
    assert any("planted" in failure for failure in outcome.failures)
