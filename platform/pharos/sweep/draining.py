"""Marking a node of a Ray cluster as draining, as `ray drain-node` does: nothing new starts there, pools leave.

A node that has nothing left to do while it drains is ended by Ray at once, long before the deadline.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from pharos.errors import ClusterError
from pharos.plan.notices import Notice
from pharos.sweep.ray_session import check_address

GCS_TIMEOUT_S = 5
ALIVE = 0
"""GcsNodeInfo.ALIVE of Ray's gcs.proto."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    node_id: str
    address: str
    is_head: bool


def drain(node: RayNode, notice: Notice, *, gcs: str) -> str:
    """Mark `node` as draining because it is preempted; returns in words what was done. Raises ClusterError.

    gcs: host:port of the cluster. The request is the one of `ray drain-node`; like it, it takes the token from
    RAY_AUTH_TOKEN or the user's token file.
    """
    from ray.core.generated import autoscaler_pb2

    if node.is_head and notice.deadline_s is None:
        return f"node {node.address} is the head, which nothing can leave: not drained while it may still stay"
    now_s = time.time()
    # 0 stands for no deadline. One that has passed already is sent as the next second.
    deadline_ms = 0 if notice.deadline_s is None else int(max(notice.deadline_s, now_s + 1) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, rejection = gcs_client(gcs).drain_node(
        node.node_id, reason, notice.text, deadline_ms, timeout=GCS_TIMEOUT_S
    )
    if not accepted:
        raise ClusterError(f"Ray does not drain node {node.address}: {rejection}")
    left = "" if notice.deadline_s is None else f", with {max(0, notice.deadline_s - now_s):.0f} s left"
    return f"Ray drains node {node.address} ({node.node_id[:12]}){left}: nothing new starts here, pools leave it"


def gcs_address(address: str) -> str:
    """host:port of the cluster's GCS; `auto` finds it by the Ray that runs on this machine. Raises ClusterError."""
    from ray._private import services

    if address == "auto":
        found = sorted(services.find_gcs_addresses())
        latest = services.find_bootstrap_address(None)
        if latest in found:  # of the last `ray start` here
            found = [latest]
        if len(found) > 1:
            raise ClusterError(f"--address=auto: several Rays run here: {', '.join(found)}. Name one.")
        if not found:
            raise ClusterError("--address=auto: no Ray runs on this machine (yet). Start it, or name one.")
        address = found[0]
    check_address(address)
    return address


def gcs_client(gcs: str) -> Any:
    """A client of the cluster's GCS. Raises ClusterError at once where the cluster takes no request without a token."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        with _silent_stderr():
            return GcsClient(address=gcs)
    except AuthenticationError as error:
        raise ClusterError(
            f"--address={gcs} takes requests with its token only. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or "
            "RAY_AUTH_TOKEN_PATH) as they were set where the cluster was started."
        ) from error


def node_of_this_machine(gcs: str, node_id: str | None) -> RayNode:
    """The living node of the cluster that runs here, or the one of this id. Raises ClusterError."""
    alive = [
        RayNode(node_id=info.node_id.hex(), address=info.node_manager_address, is_head=info.is_head_node)
        for info in gcs_client(gcs).get_all_node_info(timeout=GCS_TIMEOUT_S).values()
        if info.state == ALIVE
    ]
    return choose_node(alive, gcs=gcs, own=own_addresses(), node_id=node_id)


def choose_node(alive: Sequence[RayNode], *, gcs: str, own: Collection[str], node_id: str | None) -> RayNode:
    """The node with one of the addresses `own`, or of this id. Raises ClusterError where that is none, or several.

    Where head and worker share a machine, the worker: what is on the head ends with the cluster.
    """
    if node_id is not None:
        here = [node for node in alive if node.node_id == node_id]
        if not here:
            raise ClusterError(f"--node-id={node_id} is no living node of the cluster at {gcs}.")
        return here[0]
    here = [node for node in alive if node.address in own]
    here = [node for node in here if not node.is_head] or here
    if not here:
        raise ClusterError(f"no living node of the cluster at {gcs} is on this machine. Name it with --node-id.")
    if len(here) > 1:
        ids = ", ".join(node.node_id for node in here)
        raise ClusterError(f"several nodes of the cluster at {gcs} run on this machine. Name one: --node-id of {ids}.")
    return here[0]


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's C++ writes there what its exception says better."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def own_addresses() -> set[str]:
    """The IP addresses of this machine's interfaces."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in families
    }
