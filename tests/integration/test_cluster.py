"""A sweep on a Ray cluster that is running already, of two nodes on this machine, started as a person starts it."""

from __future__ import annotations

import secrets
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ray_nodes import free_ports, start_node
from tests.support.small_sweep import Workplace, workplace


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
