"""Network namespaces as machines of their own: an address each, a link that is shaped, bytes that can be counted.

Two of them on one machine are joined by a veth pair, whose ends are both called eth0. It needs root, network namespaces
and Debian's iproute2; `missing()` says what of that is not here. Whatever is started in one is ended by process id.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

INTERFACE = "eth0"
LATENCY, BURST = "50ms", "256kbit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    name: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        """What runs a command inside."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def received_bytes(self) -> int:
        """Since it was made."""
        return int(self._run("cat", f"/sys/class/net/{INTERFACE}/statistics/rx_bytes"))

    def held_back(self) -> int:
        """How often its link has made something wait."""
        counters = self._run("tc", "-s", "qdisc", "show", "dev", INTERFACE)
        return sum(int(found) for found in re.findall(r"overlimits (\d+)", counters))

    def shape(self, rate: str | None) -> None:
        """What leaves it goes at `rate` at most, in tc's words (200mbit); none takes the limit away."""
        if rate is None:
            subprocess.run(
                self.command("tc", "qdisc", "del", "dev", INTERFACE, "root"), check=False, capture_output=True
            )
            return
        self._run(
            *("tc", "qdisc", "replace", "dev", INTERFACE, "root", "tbf"),
            *("rate", rate, "burst", BURST, "latency", LATENCY),
        )

    def processes(self) -> list[int]:
        return [int(pid) for pid in _run(["ip", "netns", "pids", self.name]).split()]

    def _run(self, *arguments: str) -> str:
        return _run(self.command(*arguments))


def missing() -> str | None:
    """Why there can be no namespaces with shaped links here, in a sentence; none where there can."""
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"there is no program `{program}` here: install Debian's iproute2"
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    try:
        with namespaces(2) as (first, _):
            first.shape("1gbit")
    except NamespaceError as error:
        return f"this machine does not allow it: {error}"
    return None


class NamespaceError(RuntimeError):
    """What `ip` or `tc` said."""


@contextmanager
def namespaces(number: int = 2) -> Iterator[Sequence[Namespace]]:
    """`number` namespaces of 2 at most; they and their link are gone afterwards.

    Raises NamespaceError where the machine does not allow it.
    """
    assert number == 2, "a veth pair has two ends"
    mark = uuid.uuid4().hex[:6]
    subnet = f"10.77.{int(mark[:2], 16)}"
    made = [Namespace(name=f"ph-{mark}-{index}", address=f"{subnet}.{index + 1}") for index in range(number)]
    try:
        for each in made:
            _run(["ip", "netns", "add", each.name])
            _run(each.command("ip", "link", "set", "lo", "up"))
        # Made inside: both ends may be called eth0, whatever this machine calls its own.
        first, second = made
        _run(
            first.command(
                "ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", second.name
            )
        )
        for each in made:
            _run(each.command("ip", "address", "add", f"{each.address}/24", "dev", INTERFACE))
            _run(each.command("ip", "link", "set", INTERFACE, "up"))
        yield made
    finally:
        for each in made:
            subprocess.run(["ip", "netns", "delete", each.name], check=False, capture_output=True)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NamespaceError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
