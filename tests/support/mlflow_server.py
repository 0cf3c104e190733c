"""A real MLflow server for tests, which can be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from urllib.error import URLError
from urllib.request import urlopen


class Server:
    """An MLflow server on loopback over a SQLite file, which can be killed and started again on the same port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        stores = (
            *("--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db"),
            *("--artifacts-destination", str(self.directory / "artifacts")),
        )
        address = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *address, *stores],
            cwd=self.directory,
            # Job workers are for MLflow's own agents; each would be a process more.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=(self.directory / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until(self.is_up, "the server did not come up")

    def is_up(self) -> bool:
        try:
            return bool(urlopen(f"{self.uri}/health", timeout=5).status == 200)
        except (URLError, ConnectionError, TimeoutError):
            return False

    def kill(self) -> None:
        """As a crash does: no farewell, with the workers of its own session."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def wait_until(condition: Callable[[], bool], complaint: str, timeout_s: float = 90) -> None:
    deadline_s = monotonic() + timeout_s
    while not condition():
        assert monotonic() < deadline_s, complaint
        threading.Event().wait(0.05)
