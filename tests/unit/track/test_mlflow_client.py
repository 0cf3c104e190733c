"""The check at the start: a store that could not take a sweep is refused soon, in words that help."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import monotonic

import pytest

from pharos.errors import TrackingError
from pharos.track.mlflow_client import check_tracking, connect, reason_of, request_limits, shown


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql", "mysql+pymysql"])
def test_a_server_that_is_not_there_is_refused_with_its_address_and_a_remedy(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    uri = f"{scheme}://ada:sesame@127.0.0.1:{port}"
    with pytest.raises(TrackingError) as caught:
        check_tracking(uri, "pharos")
    message = str(caught.value)
    assert f"{scheme}://ada:***@127.0.0.1:{port} cannot be used: Connection refused. Start" in message
    assert "leave it out to track in SQLite" in message
    assert "sesame" not in message
    assert "\n" not in message


def test_a_server_that_never_answers_is_refused_in_time(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    before_s = monotonic()
    with pytest.raises(TrackingError, match="cannot be used: .*[Tt]ime"):
        check_tracking(f"http://127.0.0.1:{silent_port}", "pharos")
    assert monotonic() - before_s < 3


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "wants a login.*MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"), (403, "not let this user do that")],
)
def test_a_server_that_wants_another_login_says_so_and_not_that_it_is_away(status: int, says: str) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(TrackingError, match=says) as caught:
                check_tracking(f"http://ada:sesame@127.0.0.1:{server.server_port}", "pharos")
        finally:
            server.shutdown()
    assert "sesame" not in str(caught.value)
    assert "Start" not in str(caught.value)


@pytest.mark.parametrize("uri", ["file:///results/mlruns", "/results/mlruns", "mlruns", "gopher://host"])
def test_what_is_no_store_is_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match=r"is no MLflow store that works.* Use sqlite:////absolute/path/mlflow\.db"):
        check_tracking(uri, "pharos")


def test_a_relative_database_is_refused_with_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match=f"Write it absolute: sqlite:///{tmp_path}/runs.db"):
        check_tracking("sqlite:///runs.db", "pharos")


def test_a_database_below_a_file_or_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrackingError, match=f"cannot be written: {tmp_path}/file: Not a directory"):
        check_tracking(f"sqlite:///{tmp_path}/file/runs.db", "pharos")
    with pytest.raises(TrackingError, match="Is a directory"):
        check_tracking(f"sqlite:///{tmp_path}", "pharos")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("shopping list")
    with pytest.raises(TrackingError, match="is no SQLite database"):
        check_tracking(f"sqlite:///{path}", "pharos")
    assert path.read_text() == "shopping list"


def test_a_database_that_is_not_there_yet_passes_and_nothing_is_made(tmp_path: Path) -> None:
    check_tracking(f"sqlite:///{tmp_path}/new/runs.db", "pharos")
    assert list(tmp_path.iterdir()) == []


def test_a_store_passes_until_its_experiment_was_deleted(store_uri: str) -> None:
    check_tracking(store_uri, "pharos")
    client = connect(store_uri)
    experiment = client.create_experiment("pharos")
    check_tracking(store_uri, "pharos")
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"was deleted .* --experiment-id {experiment}"):
        check_tracking(store_uri, "pharos")


def test_limits_on_requests_end_with_their_block_and_leave_the_users_own_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with request_limits(timeout_s=4, max_retries=0):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "4"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_password_is_never_shown() -> None:
    assert shown("postgresql://ada:sesame@db:5432/mlflow") == "postgresql://ada:***@db:5432/mlflow"
    assert shown("http://host:5000/path") == "http://host:5000/path"


def test_a_new_store_is_made_without_a_word_on_the_terminal(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pharos.track.mlflow_client import connect\n"
        f"client = connect('sqlite:///{tmp_path}/runs.db')\n"
        "run = client.create_run(client.create_experiment('x', artifact_location='file:///nowhere'))\n"
        "client.set_terminated(run.info.run_id)\n"
        "assert not {'torch', 'ray'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('(Caused by NewConnectionError("[Errno 111] Connection refused"))', "Connection refused"),
        (
            "ProtocolError('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))",
            "Connection reset by peer",
        ),
        ("('Connection aborted.', RemoteDisconnected('Remote end closed connection'))", "Remote end closed connection"),
        ("no such table: runs.\nmore", "no such table: runs"),
    ],
)
def test_the_reason_is_the_innermost_one(text: str, reason: str) -> None:
    error = OSError(f"API request to http://127.0.0.1:5000 failed with exception {text}" if "(" in text else text)
    assert reason_of(error, "http://127.0.0.1:5000") == reason
