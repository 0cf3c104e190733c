"""Which network interface the ranks of a pool talk over."""

from __future__ import annotations

import os

import psutil

GLOO = "GLOO_SOCKET_IFNAME"


def interface_of(address: str) -> str:
    """The network interface that holds an IP address; empty where none does."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address == each.address for each in addresses):
            return name
    return ""


def talk_where_nodes_do() -> None:
    """In a Ray process: have gloo use the interface of the node's address, unless the environment names another.

    By itself gloo takes what the host's name resolves to, which on many machines is their loopback (Debian writes
    127.0.1.1 into /etc/hosts). NCCL looks for an interface that leads to the other nodes.
    """
    import ray

    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault(GLOO, interface)
