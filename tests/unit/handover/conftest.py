"""A tiny model with a tokenizer and a chat template, made once, and rows that it can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support import small_sweep


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights that reads 64 tokens."""
    return small_sweep.write_base(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """84 commands and their answers, "on" or "off"."""
    small_sweep.write_rows(tmp_path / "rows.jsonl")
    return tmp_path / "rows.jsonl"
