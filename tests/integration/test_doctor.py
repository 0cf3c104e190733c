"""The doctor on a real cluster of two nodes on this machine, which wants a token: one node is fit, one is made ill."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.ray_nodes import ray_head, start_node
from tests.support.small_sweep import Finished, Workplace, workplace

PATIENCE_S = 240


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = workplace(tmp_path, tmp_path / "no-base-is-needed")
    yield place
    place.end_everything()


def doctor(place: Workplace, *arguments: str, token: str | None = None) -> Finished:
    environment = place.environment | ({} if token is None else {"RAY_AUTH_TOKEN": token})
    run = subprocess.run(
        [sys.executable, "-m", "pharos", "doctor", *arguments],
        cwd=place.root / "cwd",
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Finished(returncode=run.returncode, stdout=run.stdout, stderr=run.stderr, wall_s=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_node_is_looked_at_and_what_lies_between_them(place: Workplace) -> None:
    with ray_head(place) as first:
        address = first.address
        # More CPUs than any machine has: what is ill there must not be said of the head.
        second = start_node(place, place.root / "node.log", f"--address={address}", num_cpus=4096)
        results = place.root / "results"
        run = doctor(place, "--address", address, "--storage", str(results), "--json")
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stderr == ""
        told = json.loads(run.stdout)
        lines = {line["name"]: line for line in told["checks"] if line["verdict"] != "warning"}
        assert {name for name, line in lines.items() if line["verdict"] == "ok"} >= {
            *("nodes", "versions", "storage", "clocks", "ports", "all-reduce", "token", "dashboard"),
        }
        ill = {line["name"]: line for line in told["checks"] if line["verdict"] == "warning"}
        assert {"CPUs", "tracking"} <= set(ill)
        assert len(ill["CPUs"]["nodes"]) == 1
        head, other = told["nodes"]
        assert (head["is_head"], other["is_head"]) == (True, False)
        assert (head["ray_cpus"], other["ray_cpus"]) == (1.0, 4096.0)
        measured = told["cluster"]["all_reduce"]
        assert (measured["num_nodes"], measured["problem"]) == (2, "")
        assert measured["bus_bytes_per_s"] > 0
        assert not results.exists(), "the doctor leaves nothing"

        shown = doctor(place, "--address", address, "--storage", "/proc/nowhere")
        assert shown.returncode == 1, shown.stdout + shown.stderr
        assert "verdict: wrong" in shown.stdout

        refused = doctor(place, "--address", address, token="0" * 64)
        assert refused.returncode == 2
        assert "takes requests with its token only" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        # A node that hangs: Ray calls it alive for a while yet. What the others have to say is said all the same.
        [raylet] = [child for child in psutil.Process(second.pid).children(recursive=True) if child.name() == "raylet"]
        raylet.suspend()
        hanging = doctor(place, "--address", address, "--storage", str(place.root), "--json")
        raylet.resume()
        told = json.loads(hanging.stdout)
        assert (hanging.returncode, told["verdict"]) == (1, "wrong")
        assert [node["is_head"] for node in told["nodes"]] == [True]
        assert [silent["node_id"] for silent in told["cluster"]["silent"]] == [other["node_id"]]
        assert {line["name"] for line in told["checks"] if line["verdict"] == "wrong"} == {"nodes"}
