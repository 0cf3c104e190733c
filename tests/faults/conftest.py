"""Places for sweeps that are going to be disturbed, and the end of whatever a failed test leaves running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_sweep import Workplace, spec_fields, workplace, write_base


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    """Six trials of 40 steps without halving: batches of 4 and 8 rows, so that some end while others train."""
    search: dict[str, Any] = spec_fields()["search"] | {"halving": {"enabled": False}}
    search["space"] = search["space"] | {"optim.learning_rate": {"log_uniform": [1e-3, 1e-2]}}
    train = {"max_steps": 40, "batch_size": 8, "micro_batch_size": 4, "report_every": 4}
    optim = spec_fields()["optim"] | {"learning_rate": 2e-3}
    made = workplace(tmp_path, small_base, search=search, train=train, optim=optim, test={"generate": False})
    yield made
    made.end_everything()
