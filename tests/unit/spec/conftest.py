"""Writing a sweep file and reading it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pharos.spec.load import load_spec
from pharos.spec.model import SweepSpec

SMALLEST = "name: small\nbase: builtin:tiny\ndata: {train: builtin:docker-commands}\n"

Load = Callable[..., SweepSpec]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """load("optim: {learning_rate: 1e-4}", "lora.r=4"): the smallest sweep with these lines, under these overrides.

    The file is called sweep.yaml; the given lines begin in line 4.
    """
    monkeypatch.chdir(tmp_path)

    def write_and_load(lines: str = "", *overrides: str, head: str = SMALLEST) -> SweepSpec:
        Path("sweep.yaml").write_text(head + lines)
        return load_spec(Path("sweep.yaml"), overrides)

    return write_and_load
