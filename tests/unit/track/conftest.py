"""SQLite stores of MLflow for the tests of tracking: an empty one is made once and copied, since that takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pharos.track.mlflow_client import connect
from pharos.track.mlflow_runs import MlflowRuns


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store_uri(empty_store: Path, tmp_path: Path) -> str:
    """The tracking URI of an empty store in tmp_path."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture
def runs(store_uri: str, tmp_path: Path) -> MlflowRuns:
    return MlflowRuns(store_uri, "pharos", artifact_root=tmp_path / "artifacts")
