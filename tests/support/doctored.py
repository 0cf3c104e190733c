"""Facts of machines that are well, for tests that make one thing of them ill."""

from __future__ import annotations

from typing import Any

from pharos.plan.doctor import AllReduce, Cluster, Dashboard, Examination, Gpu, NodeFacts, Room, Skew

GB = 10**9
VERSIONS = {
    "python": "3.11.7",
    "pharos": "0.1.0",
    "ray": "2.60.0",
    "torch": "2.13.0+cu128",
    "deepspeed": "0.19.8",
    "transformers": "5.23.0",
    "peft": "0.21.2",
    "mlflow": "3.17.2",
}
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=81559 * 2**20, driver="570.86")


def a_node(number: int = 0, **changes: Any) -> NodeFacts:
    """Node 10.0.0.1 is the head."""
    fields: dict[str, Any] = {
        "node_id": f"{number:056x}",
        "address": f"10.0.0.{number + 1}",
        "hostname": f"node-{number}",
        "is_head": number == 0,
        "versions": VERSIONS,
        "unmet": (),
        "num_cpus": 16,
        "memory_bytes": 128 * GB,
        "available_bytes": 120 * GB,
        "gpus": (H100, H100),
        "torch_cuda": "12.8",
        "shared_memory": Room(path="/dev/shm", total_bytes=64 * GB, free_bytes=64 * GB),
        "rooms": (Room(path="/shared/results", total_bytes=1000 * GB, free_bytes=500 * GB),),
        "swap_bytes": 0,
        "swap_used_bytes": 0,
        "max_open_files": 1048576,
        "interface": "eth0",
        "interface_mbit": 10000,
        "tracking_problem": "",
        "missing_paths": (),
        "ray_cpus": 16.0,
        "ray_gpus": 2.0,
    }
    return NodeFacts(**fields | changes)


def a_cluster(*nodes: NodeFacts, **changes: Any) -> Cluster:
    fields: dict[str, Any] = {
        "address": "10.0.0.1:6379",
        "skews": tuple(Skew(node_id=node.node_id, ahead_s=0.001, error_s=0.0005) for node in nodes),
        "num_ports": 7,
        "all_reduce": AllReduce(backend="nccl", num_nodes=len(nodes), size_bytes=512 * 2**20, seconds=0.5),
        "dashboard": Dashboard(url="http://127.0.0.1:8265", status=401, is_public=False),
    }
    return Cluster(**fields | changes)


def an_examination(*nodes: NodeFacts, cluster: Cluster | None = None, **changes: Any) -> Examination:
    fields: dict[str, Any] = {
        "storage": "/shared/results",
        "storage_problem": "",
        "tracking": "http://mlflow.lan:5000",
        "tracking_problem": "",
        "seconds": 9.0,
    }
    return Examination(nodes=nodes, cluster=cluster, **fields | changes)
