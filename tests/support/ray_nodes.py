"""Nodes of a Ray cluster on this machine, started as a person starts them, for the tests that join or lose one."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.small_sweep import Workplace, wait_until

START_S = 120
"""How long a node may take to come up on a busy machine."""


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
