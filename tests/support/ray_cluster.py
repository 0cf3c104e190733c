"""Ray clusters of several nodes on this machine, whose nodes can be lost and replaced, or lie in network namespaces.

Everything is ended by process id. A node is lost as a machine is: its raylet goes at once, and all of it with that.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.support.namespaces import Namespace, namespaces
from tests.support.ray_nodes import HOST, ray_head, start_node
from tests.support.small_sweep import Workplace, kill, wait_until

PORT = 6379
"""In a namespace of its own nobody else has it."""


@dataclass(slots=True, kw_only=True)
class RayCluster:
    """address: where drivers and nodes join. nodes: worker nodes, each the process of its `ray start --block`."""

    place: Workplace
    address: str
    dashboard_port: int
    nodes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    num_started: int = 0

    def add_node(self, *, num_cpus: float = 1) -> str:
        """Start a worker node and return its name once it has joined."""
        name = f"node-{self.num_started}"
        self.num_started += 1
        log = self.place.root / f"{name}.log"
        arguments = (f"--address={self.address}", f"--node-ip-address={HOST}", f"--labels=name={name}")
        self.nodes[name] = start_node(self.place, log, *arguments, num_cpus=num_cpus)
        return name

    def processes_of(self, name: str) -> list[psutil.Process]:
        """The processes of a node, its raylet first."""
        try:
            started = psutil.Process(self.nodes[name].pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return sorted(started, key=lambda process: process.name() != "raylet")

    def node_id(self, name: str) -> str:
        """Ray's own name of a node."""
        raylet = self.processes_of(name)[0]
        [found] = [word for word in raylet.cmdline() if word.startswith("--node_id=")]
        return found.removeprefix("--node_id=")

    def announce_end(self, name: str, *, deadline_s: int) -> None:
        """What a cloud's notice of preemption does: mark the node as draining. Nothing ends it but `lose_node`."""
        command = [str(Path(sys.executable).with_name("ray")), "drain-node", f"--address={self.address}"]
        command += [f"--node-id={self.node_id(name)}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message=a notice of the tests", f"--deadline-remaining-seconds={deadline_s}"]
        done = subprocess.run(command, env=self.place.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def lose_node(self, name: str) -> None:
        """Kill a node: nothing of it gets to say anything."""
        processes = self.processes_of(name)
        kill(self.nodes[name].pid)
        for process in processes:
            kill(process.pid)
        self.nodes.pop(name).wait()


@contextmanager
def cluster_in_namespaces(place: Workplace, *, rate: str) -> Iterator[Sequence[Namespace]]:
    """Two nodes of one CPU each, with addresses of their own and a link of that rate in each direction, in tc's words.

    What is started from `place` runs on the first, which is the head. Raises NamespaceError where it cannot be.
    """
    place.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with namespaces() as nodes, tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        head, other = nodes
        for node in nodes:
            node.shape(rate)
        address = f"{head.address}:{PORT}"
        try:
            first = ("--head", f"--node-ip-address={head.address}", f"--port={PORT}", f"--temp-dir={directory}")
            start_node(place, place.root / "head.log", *first, under=head.command())
            second = (f"--address={address}", f"--node-ip-address={other.address}")
            start_node(place, place.root / "node.log", *second, under=other.command())
            place.environment["RAY_ADDRESS"] = address
            place.within = head.command()
            yield nodes
        finally:
            place.end_everything()
            wait_until(lambda: place.processes() == [], "a node outlived its end", timeout_s=60)


@contextmanager
def ray_cluster(place: Workplace, *, num_nodes: int, num_cpus: float = 1) -> Iterator[RayCluster]:
    """A head on loopback that wants a token, and `num_nodes` worker nodes; `pharos` joins it from `place`."""
    with ray_head(place, num_cpus=0) as head:
        cluster = RayCluster(place=place, address=head.address, dashboard_port=head.dashboard_port)
        for _ in range(num_nodes):
            cluster.add_node(num_cpus=num_cpus)
        place.environment["RAY_ADDRESS"] = cluster.address
        yield cluster
