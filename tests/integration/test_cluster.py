"""A sweep on a Ray cluster that is running already, of two nodes on this machine, started as a person starts it."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.small_sweep import Workplace, wait_until, workplace

START_S = 120
"""How long a node may take to come up on a busy machine."""


def start_node(place: Workplace, log: Path, *arguments: str) -> None:
    """`ray start`, in the foreground, so that ending it ends the node."""
    command = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--disable-usage-stats", "--block"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=place.root,
            env=place.environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
        )
    place.started.append(process)
    wait_until(
        lambda: "Ray runtime started" in log.read_text() or process.poll() is not None,
        "no node came up",
        timeout_s=START_S,
    )
    assert process.poll() is None, log.read_text()


def free_ports(number: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    pool = {"workers": 2, "seats_per_worker": 1, "sharding": "zero3"}
    search = {"num_trials": 3, "space": {"optim.learning_rate": {"log_uniform": [1e-5, 3e-2]}}}
    place = workplace(tmp_path, small_base, search=search, pool=pool)
    place.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        yield place
    finally:
        place.end_everything()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_runs_on_a_cluster_of_two_nodes_that_wants_a_token(place: Workplace) -> None:
    port, client_port, dashboard_port = free_ports(3)
    # Ray's sockets lie in this directory, and a socket's path may have only a hundred characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        address = f"127.0.0.1:{port}"
        start_node(
            place,
            place.root / "head.log",
            *("--head", "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={directory}"),
            *(f"--ray-client-server-port={client_port}", f"--dashboard-port={dashboard_port}"),
        )
        start_node(place, place.root / "node.log", f"--address={address}", "--node-ip-address=127.0.0.1")
        place.environment["RAY_ADDRESS"] = address
        run = place.run("sweep")
        assert run.returncode == 0, run.stdout + run.stderr
        result = place.result()
        assert (result["state"], len(result["trials"])) == ("COMPLETED", 3)
        # One CPU a node and one a worker: the base was divided between the nodes.
        assert result["pool"] == {
            "workers": 2,
            "seats": 2,
            "placement": "local",
            "sharding": "zero3",
            "restarts": 0,
            "count": 1,
        }

        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{dashboard_port}/api/v0/actors")
        place.end_everything()
