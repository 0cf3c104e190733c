"""MLflow's own server over a database store, on loopback, for as long as someone looks: no process outlives it.

MLflow is started as a command and never imported here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from pharos.errors import TrackingError
from pharos.track.mlflow_client import shown

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 5
POLL_S = 0.1
NUM_LOG_LINES = 5
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Job workers are for MLflow's own agents; each would be a process more.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def check_port(port: int) -> None:
    """Raise TrackingError where something else listens on this port of loopback, with one that is free."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        with socket.create_server((LOOPBACK, 0)) as free:
            other = free.getsockname()[1]
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise TrackingError(
            f"--port {port} cannot be used: {reason}. Stop what listens there, or give another: --port {other} is free."
        ) from error


def check_answers(uri: str) -> None:
    """Raise TrackingError where no server answers at the address; what it answers is not looked at."""
    try:
        urlopen(uri, timeout=ANSWER_TIMEOUT_S).close()
    except HTTPError:
        return
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        said = getattr(reason, "strerror", None) or str(reason)
        raise TrackingError(
            f"tracking: {shown(uri)} cannot be used: {said}. Start it (mlflow server), or correct --tracking-uri."
        ) from error


@contextmanager
def mlflow_server(store_uri: str, *, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An MLflow server over the store, which answers when the block begins and is gone when it ends.

    Raises TrackingError, with the last lines that it said, where it does not come up.
    """
    with TemporaryDirectory(prefix="pharos-mlflow-") as folder:
        log = Path(folder) / "server.log"
        options = ["--backend-store-uri", store_uri, "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options],
                cwd=folder,
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches this process alone, which then ends the server and its workers in turn.
                start_new_session=True,
            )
        try:
            _wait_until_up(process, port, log)
            yield process
        finally:
            _end(process)


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = monotonic() + START_TIMEOUT_S
    while process.poll() is None and monotonic() < deadline_s:
        try:
            urlopen(f"http://{LOOPBACK}:{port}/health", timeout=ANSWER_TIMEOUT_S).close()
        except (URLError, HTTPException, OSError):
            sleep(POLL_S)
        else:
            return
    said = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-NUM_LOG_LINES:])
    raise TrackingError(f"MLflow's server did not come up on port {port}. It said:\n{said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server with all processes of its session; a second Ctrl-C does not keep that from happening."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever of its session is left
        process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
