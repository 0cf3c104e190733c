"""A cloud's notice on a node of a real cluster: Ray hears that the node is draining, and why, and until when."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.metadata_services import FakeCloud, served
from tests.support.ray_nodes import ray_head, start_node
from tests.support.small_sweep import Workplace, wait_until, workplace

# What a pool is to its node: an actor there, so that the draining node is not idle and Ray does not end it at once.
BUSY = """
import json, sys, time
import ray
from ray._private.state import state

@ray.remote(num_cpus=0, resources={"worker": 1})
class Busy:
    def node(self):
        return ray.get_runtime_context().get_node_id()

ray.init(address=sys.argv[1], log_to_driver=False)
busy = Busy.remote()
print(ray.get(busy.node.remote()), flush=True)
while not state.get_draining_nodes():
    time.sleep(0.1)
print(json.dumps(state.get_draining_nodes()), flush=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = workplace(tmp_path, tmp_path / "no-base-is-needed")
    yield place
    place.end_everything()


def start(place: Workplace, log: Path, *command: str) -> subprocess.Popen[str]:
    with log.open("w") as said, log.with_suffix(".stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=place.root, env=place.environment, stdout=said, stderr=errors, text=True
        )
    place.started.append(process)
    return process


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_preempted_node_is_draining_in_ray_until_the_clouds_deadline(place: Workplace) -> None:
    busy_log, watcher_log = place.root / "busy.log", place.root / "watcher.log"
    with ray_head(place) as head, served(FakeCloud(kind="aws")) as cloud:
        start_node(place, place.root / "node.log", f"--address={head.address}", '--resources={"worker": 1}')
        busy = start(place, busy_log, "-c", BUSY, head.address)
        wait_until(lambda: busy_log.read_text().endswith("\n"), "no actor came up", timeout_s=90)
        node = busy_log.read_text().split()[0]

        watching = ("-m", "pharos", "watch-notices", "--endpoint", cloud.endpoint, "--poll-s", "0.2")
        watcher = start(place, watcher_log, *watching, "--address", head.address)
        wait_until(lambda: node[:12] in watcher_log.read_text(), "the watcher found no node", timeout_s=60)
        assert busy.poll() is None
        assert len(busy_log.read_text().split()) == 1, "no notice, nothing draining"

        deadline_s = int(time.time()) + 120
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(deadline_s))
        cloud.instance_action = {"action": "terminate", "time": at}
        assert busy.wait(timeout=60) == 0, busy_log.read_text()
        assert json.loads(busy_log.read_text().splitlines()[1]) == {node: deadline_s * 1000}

        wait_until(lambda: "Ray drains node" in watcher_log.read_text(), "the watcher did not say what it did")
        cloud.fails = True
        wait_until(lambda: "does not answer as it should" in watcher_log.read_text(), "no word of the failing service")
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(timeout=20) == 0
        lines = watcher_log.read_text()
        assert "AWS is to terminate this spot instance" in lines
        assert lines.rstrip().endswith("ended")
        assert watcher_log.with_suffix(".stderr").read_text() == ""
