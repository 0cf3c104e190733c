"""One finished sweep for many tests: it takes about a minute, most of it Ray's start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_sweep import Finished, Workplace, workplace, write_base

from pharos.plan.events import Event
from pharos.plan.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSweep:
    """A sweep that was run once, and what it left, read before any test could change it.

    tracking_uri: of a copy of the store as it was then. left_running: processes that outlived the command.
    """

    place: Workplace
    run: Finished
    events: list[Event]
    ledger: Ledger
    result: dict[str, Any]
    tracking_uri: str
    left_running: list[int]


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Iterator[FinishedSweep]:
    place = workplace(tmp_path_factory.mktemp("sweep"), small_base)
    try:
        run = place.run("sweep")
        left_running = place.processes()
        assert run.returncode == 0, run.stdout + run.stderr
        store = place.root / "tracking-as-it-was.db"
        shutil.copy(place.root / "results" / "mlflow.db", store)
        yield FinishedSweep(
            place=place,
            run=run,
            events=place.events(),
            ledger=place.ledger(),
            result=place.result(),
            tracking_uri=f"sqlite:///{store}",
            left_running=left_running,
        )
    finally:
        place.end_everything()
