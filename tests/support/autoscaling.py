"""A cluster on this machine that Ray's real autoscaler grows and shrinks, by the node provider that Ray tests it with.

Nodes are raylets of their own with one declared CPU. Ray's own starters of such clusters run `ray stop`, which ends
every Ray of a machine; here the head is an ordinary `ray start`, and everything is ended by process id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from tests.support.ray_nodes import HOST, free_ports, ray_head
from tests.support.small_sweep import Workplace, wait_until

WORKER = "pharos.worker"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
SECONDS_OF_MINUTE = 60


@dataclass(slots=True, kw_only=True)
class AutoscalingCluster:
    """address: where drivers join. idle_timeout_s: after so long without work the autoscaler takes a node away.

    seen: (seconds since the first look, worker nodes that were alive) at each change of their number.
    """

    place: Workplace
    address: str
    idle_timeout_s: float
    began_s: float = field(default_factory=monotonic)
    seen: list[tuple[float, int]] = field(default_factory=list)

    def num_workers(self) -> int:
        """Worker nodes now: raylets other than the head's."""
        number = len(self.place.processes("/raylet/raylet ")) - 1
        if not self.seen or self.seen[-1][1] != number:
            self.seen.append((round(monotonic() - self.began_s, 1), number))
        return number


@contextmanager
def autoscaling_cluster(
    place: Workplace, *, min_workers: int, max_workers: int, num_cpus: int = 1, idle_timeout_s: float = 15
) -> Iterator[AutoscalingCluster]:
    """A head without CPUs and from `min_workers` to `max_workers` nodes of `num_cpus` each, as the work asks for."""
    place.environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    [port] = free_ports(1)  # the provider's configuration names the address, and is read when the head starts
    config = place.root / "autoscaling.json"
    config.write_text(json.dumps(_config(f"{HOST}:{port}", min_workers, max_workers, num_cpus, idle_timeout_s)))
    with ray_head(place, f"--autoscaling-config={config}", num_cpus=0, port=port) as head:
        place.environment["RAY_ADDRESS"] = head.address
        cluster = AutoscalingCluster(place=place, address=head.address, idle_timeout_s=idle_timeout_s)
        wait_until(lambda: cluster.num_workers() >= min_workers, "the first nodes did not come")
        del cluster.seen[:-1]
        yield cluster


def _config(
    address: str, min_workers: int, max_workers: int, num_cpus: int, idle_timeout_s: float
) -> dict[str, object]:
    return {
        "cluster_name": "autoscaling",
        "max_workers": max_workers,
        "idle_timeout_minutes": idle_timeout_s / SECONDS_OF_MINUTE,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "gcs_address": address,
            "head_node_id": "f" * 51 + "0" * 5,
            "launch_multiple": True,
            # Its nodes are up once they are made: there is nobody to log in to.
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "use_node_id_as_ip": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            WORKER: {
                "resources": {"CPU": num_cpus},
                "node_config": {},
                "min_workers": min_workers,
                "max_workers": max_workers,
            },
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 100.0,
        # All of these must be there; none of them means anything to this provider.
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        **{name: [] for name in ("initialization_commands", "setup_commands")},
        **{f"{node}_{what}": [] for node in ("head", "worker") for what in ("setup_commands", "start_ray_commands")},
    }
