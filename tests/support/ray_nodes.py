"""Nodes of a Ray cluster on this machine, started as a person starts them, for the tests that join or lose one."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.small_sweep import Workplace, wait_until

HOST = "127.0.0.1"
START_S = 120
"""How long a node may take to come up on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A cluster's first node. address: where drivers and nodes join. directory: where Ray keeps its files."""

    address: str
    dashboard_port: int
    directory: Path


@contextmanager
def ray_head(place: Workplace, *arguments: str, num_cpus: float = 1, port: int | None = None) -> Iterator[Head]:
    """A head on loopback and on ports of its own that wants a token, which everything of `place` is given.

    arguments: further ones of `ray start`. All processes of the place are ended with it.
    """
    own_port, client_port, dashboard_port = free_ports(3)
    port = port or own_port
    place.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray's sockets lie in this directory, and a socket's path may have only a hundred characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        try:
            start_node(
                place,
                place.root / "head.log",
                *("--head", f"--node-ip-address={HOST}", f"--port={port}", f"--temp-dir={directory}"),
                *(f"--ray-client-server-port={client_port}", f"--dashboard-port={dashboard_port}", *arguments),
                num_cpus=num_cpus,
            )
            yield Head(address=f"{HOST}:{port}", dashboard_port=dashboard_port, directory=Path(directory))
        finally:
            place.end_everything()
            wait_until(lambda: place.processes() == [], "a node outlived its end", timeout_s=60)


def start_node(
    place: Workplace, log: Path, *arguments: str, num_cpus: float = 1, under: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """`ray start`, in the foreground, so that ending it ends the node. under: a command that is to start it.

    It is one of the place's processes: `place.end_everything` ends it, and whatever it started.
    """
    ray = str(Path(sys.executable).with_name("ray"))
    command = [*under, ray, "start", f"--num-cpus={num_cpus:g}", "--disable-usage-stats", "--block"]
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
    return process


def free_ports(number: int) -> list[int]:
    """Ports of the loopback that nothing listens on now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
