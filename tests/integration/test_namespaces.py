"""A sweep over two nodes that have a network between them: addresses of their own, and a link with a limit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.namespaces import Namespace, missing, namespaces
from tests.support.ray_cluster import cluster_in_namespaces
from tests.support.small_sweep import Workplace, workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    pool = {"workers": 2, "seats_per_worker": 1, "sharding": "zero3"}
    search = {"num_trials": 3, "space": {"optim.learning_rate": {"log_uniform": [1e-5, 3e-2]}}}
    made = workplace(tmp_path, small_base, search=search, pool=pool, register={"enabled": False})
    yield made
    made.end_everything()


def test_a_base_that_is_divided_over_two_machines_trains_through_their_link(place: Workplace) -> None:
    with cluster_in_namespaces(place, rate="200mbit") as nodes:
        before = [node.received_bytes() for node in nodes]
        run = place.run("sweep")
        assert run.returncode == 0, run.stdout + run.stderr
        received = [node.received_bytes() - at_first for node, at_first in zip(nodes, before, strict=True)]
    result = place.result()
    assert result["state"] == "COMPLETED"
    assert [trial["number"] for trial in result["trials"]] == [0, 1, 2]
    assert result["pool"]["sharding"] == "zero3"
    # Each node gathers the half that it lacks of 42 thousand fp32 weights, in each of more than sixteen clocks.
    assert min(received) > 16 * 42_000 * 4 / 2
    assert_gone(nodes)


@pytest.mark.parametrize("rate", ["8mbit", None])
def test_a_link_with_a_limit_makes_wait_and_one_without_does_not(rate: str | None) -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with namespaces() as (first, second):
        first.shape(rate)
        num_bytes = 400_000
        receiver = subprocess.Popen(
            second.command(sys.executable, "-c", RECEIVE, second.address), stdout=subprocess.PIPE, text=True
        )
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        subprocess.run(first.command(sys.executable, "-c", SEND, second.address, str(num_bytes)), check=True)
        assert int(receiver.communicate()[0]) == num_bytes <= second.received_bytes()
        assert (first.held_back() > 0) is (rate is not None)
    assert_gone((first, second))


def assert_gone(nodes: Sequence[Namespace]) -> None:
    known = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert not [node.name for node in nodes if node.name in known]


RECEIVE = """
import socket, sys
server = socket.create_server((sys.argv[1], 4444))
print("listening", flush=True)
connection, _ = server.accept()
got = 0
while block := connection.recv(65536):
    got += len(block)
print(got)
"""
SEND = """
import socket, sys
socket.create_connection((sys.argv[1], 4444)).sendall(bytes(int(sys.argv[2])))
"""
