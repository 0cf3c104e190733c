"""`pharos` run in the process of a test: quicker than a process of its own, and as a person types it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pharos.cli import main

Pharos = Callable[..., tuple[int, str, str]]
"""pharos("compare", "quickstart", stdin="...") -> exit code, stdout, stderr."""


def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pharos:
    def run(*arguments: str | Path, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pharos", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as exit:
            code = int(exit.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run
