"""What `pharos doctor` finds out: facts of each node and of what lies between nodes, as values. Pure.

Gathered in sweep/doctor*.py; what they mean is said in doctor_verdicts.py and doctor_cluster_verdicts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["ok", "warning", "wrong", "not checked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table. nodes: which it speaks of, empty for all of them or for none in particular."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_bytes: int
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a file system holds and has left."""

    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to look at on every node.

    storage: absolute path or URI. tracking_uri: as given, with its password. paths: that workers must find.
    """

    storage: str
    tracking_uri: str
    experiment: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One machine as a worker of Pharos would find it.

    versions: of python and each library; empty text where it is missing. unmet: what pharos asks for and does not get.
    torch_cuda: the CUDA version that torch was built for, empty for none. max_open_files: the hard limit, which Ray
    raises the soft one towards; -1 for none. interface: that holds `address`. tracking_problem: why MLflow cannot be
    reached from here, empty where it can.
    """

    node_id: str
    address: str
    hostname: str
    is_head: bool
    versions: Mapping[str, str]
    unmet: tuple[str, ...]
    num_cpus: int
    memory_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...]
    torch_cuda: str
    shared_memory: Room | None
    rooms: tuple[Room, ...]
    swap_bytes: int
    swap_used_bytes: int
    max_open_files: int
    interface: str
    interface_mbit: int | None
    tracking_problem: str
    missing_paths: tuple[str, ...]
    ray_cpus: float | None = None
    ray_gpus: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentNode:
    """A node that Ray calls alive, and that gave no answer."""

    node_id: str
    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """How far a node's clock is ahead of the clock here. error_s: half of the quickest round trip."""

    node_id: str
    ahead_s: float
    error_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPort:
    """A port of one node that another cannot connect to. what: which of Ray's, or one chosen at random."""

    from_node: str
    to_node: str
    port: int
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduce:
    """A sum over one process a node. problem: why there was none. seconds: of one all-reduce of size_bytes.

    needs_interface: it failed as workers do it, and worked once each was told the interface of its node's address.
    """

    backend: str
    num_nodes: int
    size_bytes: int = 0
    seconds: float = 0.0
    problem: str = ""
    needs_interface: str = ""

    @property
    def algorithm_bytes_per_s(self) -> float:
        return self.size_bytes / self.seconds if self.seconds else 0.0

    @property
    def bus_bytes_per_s(self) -> float:
        """What crosses each node's link, in each direction: 2 (n - 1) / n of the tensor."""
        return self.algorithm_bytes_per_s * 2 * (self.num_nodes - 1) / self.num_nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """Ray's dashboard, with its jobs API, as the head sees it.

    status: of a request without a token, none where nothing answered. is_public: it answers on the head's own address,
    not on loopback alone.
    """

    url: str
    status: int | None
    is_public: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What lies between the nodes. Empty fields of a cluster of one node were not looked at."""

    address: str
    silent: tuple[SilentNode, ...] = ()
    draining: tuple[str, ...] = ()
    storage_problems: Mapping[str, str] = field(default_factory=dict)
    skews: tuple[Skew, ...] = ()
    num_ports: int = 0
    closed: tuple[ClosedPort, ...] = ()
    all_reduce: AllReduce | None = None
    dashboard: Dashboard | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All that was found. nodes: the head first; this machine alone where cluster is none.

    storage_problem, tracking_problem: as seen from here, empty for none. tracking: the URI as it may be shown.
    """

    nodes: tuple[NodeFacts, ...]
    storage: str
    storage_problem: str
    tracking: str
    tracking_problem: str
    cluster: Cluster | None = None
    seconds: float = 0.0


def labels(nodes: tuple[NodeFacts, ...]) -> dict[str, str]:
    """How each node is called: by its address, and by its id too where two share one."""
    addresses = [node.address for node in nodes]
    return {
        node.node_id: node.address if addresses.count(node.address) == 1 else f"{node.address} ({node.node_id[:6]})"
        for node in nodes
    }
