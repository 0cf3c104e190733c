"""Comparing and looking at a sweep where nothing of it runs any more: SQLite, a real MLflow server, and `pharos ui`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.many_trials import many_trials, many_trials_spec
from tests.support.mlflow_server import Server, wait_until
from tests.support.small_sweep import HEARING_INTERRUPTS

from pharos.plan.paths import tracking_uri_of
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.sweeps import log_of

ROOT = Path(__file__).parents[2]
SPEC = many_trials_spec(16, name="many", num_steps=16)


def pharos(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pharos", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
        capture_output=True,
        text=True,
        check=False,
    )


def track(storage: Path, uri: str) -> None:
    """The sweep's log below the storage, and the same events as runs."""
    log = log_of(storage / "many")
    events = [event for batch in many_trials(SPEC) for event in log.append(batch)]
    runs = MlflowRuns(uri, "pharos", artifact_root=storage / "mlartifacts")
    runs.attach("many", events[0].time_s)
    runs.write(events)


def leaderboard(told: str) -> dict[str, Any]:
    """What `--json` prints, without where it was read; times to the millisecond."""
    comparison = json.loads(told)
    for sweep in comparison["sweeps"]:
        del sweep["source"]
        # Who won is told to MLflow by the event that ends a sweep; the made-up one names nobody.
        del sweep["winner"]
    for trial in comparison["trials"]:
        del trial["is_winner"]
        trial["seat_s"] = round(trial["seat_s"], 3)
    return comparison


def compared(*arguments: str | Path) -> dict[str, Any]:
    run = pharos("compare", "many", "--json", *arguments)
    assert (run.returncode, run.stderr) == (0, "")
    return leaderboard(run.stdout)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage whose sweep is tracked in the SQLite store beside it."""
    storage = tmp_path / "results"
    storage.mkdir()
    track(storage, tracking_uri_of(storage))
    return storage


@pytest.mark.slow
def test_the_log_and_sqlite_give_one_leaderboard(storage: Path) -> None:
    by_log = compared("--storage", storage)
    assert len(by_log["trials"]) == 16
    assert by_log["trials"][0]["rank"] == 1
    assert compared("--tracking-uri", tracking_uri_of(storage)) == by_log


@pytest.mark.slow
def test_the_log_and_a_server_give_one_leaderboard_and_ui_says_where_the_server_is(
    server: Server, tmp_path: Path
) -> None:
    storage = tmp_path / "results"
    track(storage, server.uri)
    assert compared("--tracking-uri", server.uri) == compared("--storage", storage)
    run = pharos("ui", "--tracking-uri", server.uri)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == server.uri
    run = pharos("compare", "mani", "--tracking-uri", server.uri)
    assert run.returncode == 2
    assert "Did you mean many?" in run.stderr
    server.kill()
    for verb in (["compare", "many"], ["ui"]):
        run = pharos(*verb, "--tracking-uri", server.uri)
        assert (run.returncode, run.stdout) == (2, "")
        assert "Connection refused" in run.stderr
        assert "Traceback" not in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ui_serves_the_store_until_it_is_stopped_and_leaves_no_process(storage: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ui = subprocess.Popen(
        [*HEARING_INTERRUPTS, sys.executable, "-m", "pharos", "ui", "--storage", str(storage), "--port", str(port)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert ui.stdout is not None
        assert ui.stdout.readline().startswith(f"http://127.0.0.1:{port}  MLflow on sqlite:///{storage}")
        assert ui.stdout.readline().startswith("ready: ")
        left = psutil.Process(ui.pid).children(recursive=True)
        assert left
        sockets = [s for process in left for s in process.net_connections("tcp") if s.status == psutil.CONN_LISTEN]
        assert {(s.laddr.ip, s.laddr.port) for s in sockets} == {("127.0.0.1", port)}
        runs = MlflowRuns(f"http://127.0.0.1:{port}", "pharos")
        runs.attach("many", next(log_of(storage / "many").read()).time_s)
        assert runs.trial_run_id(15)
        ui.send_signal(number)
        assert ui.wait(60) == 0
        assert ui.stdout.read() == "stopped; the runs are kept\n"
        wait_until(lambda: not any(process.is_running() for process in left), "a process of the server is left", 10)
    finally:
        ui.kill()
        ui.wait()
