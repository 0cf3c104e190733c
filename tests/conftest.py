"""What every test shares: the process environment, set before anything heavy is imported, and a cache directory.

Fixtures of one room live beside that room's tests, not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.command_line import Pharos
    from tests.support.hub_server import HubServer
    from tests.support.mlflow_server import Server
    from tests.support.object_store import Bucket

os.environ.update(
    # Two workers on two cores: more threads than cores is slower by an order, and sums would differ between machines.
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    DS_ACCELERATOR="cpu",
    # Unset, a new local Ray cluster turns token authentication on and writes a token into the home directory.
    RAY_AUTH_MODE="disabled",
    # Tests make their models; one that asks the hub must fail at once, not after its retries.
    HF_HUB_OFFLINE="1",
    # No telemetry.
    RAY_USAGE_STATS_ENABLED="0",
    MLFLOW_DISABLE_TELEMETRY="true",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="true",
)
# What a developer's shell may hold would send a test's trials to a real cluster or a real tracking server.
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory for what is built once and read by many tests: tokenizers, tiny bases."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A real MLflow server on loopback, of this test alone."""
    from tests.support.mlflow_server import Server

    directory = tmp_path / "server"
    directory.mkdir()
    server = Server(directory)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A hub on loopback that answers as huggingface.co does, of this test alone."""
    from tests.support.hub_server import hub_server

    with hub_server(tmp_path / "published") as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Bucket]:
    """An object store on loopback, for every test that wants one."""
    from tests.support.object_store import s3_server

    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def bucket(s3_server: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """A bucket that this test has for itself, with its credentials, and a user's cache that is empty."""
    from dataclasses import replace
    from uuid import uuid4

    from tests.support.object_store import CREDENTIALS

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PHAROS_CACHE", str(tmp_path / "user-cache"))
    return replace(s3_server, prefix=uuid4().hex)


@pytest.fixture
def pharos(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pharos:
    """Run a command in this process: its exit code, stdout and stderr."""
    from tests.support.command_line import in_this_process

    return in_this_process(monkeypatch, capsys)
