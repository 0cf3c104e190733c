"""What lies between the nodes of a cluster: clocks, ports, the dashboard. Asked of an `Examiner` on each node.

A node may be lost at any moment: it is then one that gave no answer, and the others are looked at all the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pharos.plan.doctor import ClosedPort, Dashboard, Skew

ANSWER_LIMIT_S = 30.0
NUM_PINGS = 5
MOST_FOR_ALL_PAIRS = 16
"""Up to so many nodes each knocks at every other; beyond it, at the head and at the next in the list."""


class Raylet(NamedTuple):
    """A living node as Ray lists it. ports: of Ray's processes there, by what they are for."""

    node_id: str
    address: str
    is_head: bool
    cpus: float
    gpus: float
    ports: tuple[tuple[str, int], ...]


def list_raylets(gcs: str) -> list[Raylet]:
    """Of every node that Ray calls alive, the head first. gcs: host:port."""
    import ray

    found = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        resources, is_head = node["Resources"], "node:__internal_head__" in node["Resources"]
        named = [("raylet", node["NodeManagerPort"]), ("objects", node["ObjectManagerPort"])]
        if is_head:
            named.append(("GCS", int(gcs.rpartition(":")[2])))
        found.append(
            Raylet(
                node_id=node["NodeID"],
                address=node["NodeManagerAddress"],
                is_head=is_head,
                cpus=resources.get("CPU", 0.0),
                gpus=resources.get("GPU", 0.0),
                ports=tuple(named),
            )
        )
    return sorted(found, key=lambda raylet: (not raylet.is_head, raylet.address, raylet.node_id))


def gathered(asked: Mapping[str, Any], *, limit_s: float) -> tuple[dict[str, Any], dict[str, str]]:
    """Answers by node, within one limit for all; and of every node that gave none, why."""
    import ray

    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=limit_s)
    answers, lost = {}, {}
    for node_id, answer in asked.items():
        if answer not in done:
            lost[node_id] = f"nothing within {limit_s:.0f} s"
            continue
        try:
            answers[node_id] = ray.get(answer)
        except Exception as error:  # whatever that node's Python raises, up to a missing module
            lost[node_id] = _reason(error)
    return answers, lost


def skews(raylet: Raylet, examiners: Mapping[str, Any]) -> list[Skew]:
    """By the quickest of some round trips, as NTP does it; nothing of a node that does not answer."""
    trips = []
    for _ in range(NUM_PINGS):
        sent_s = time.time()
        answers, _ = gathered({raylet.node_id: examiners[raylet.node_id].clock.remote()}, limit_s=ANSWER_LIMIT_S)
        back_s = time.time()
        if not answers:
            return []
        trips.append((back_s - sent_s, answers[raylet.node_id] - (sent_s + back_s) / 2))
    quickest_s, ahead_s = min(trips)
    return [Skew(node_id=raylet.node_id, ahead_s=ahead_s, error_s=quickest_s / 2)]


def ports(
    raylets: Sequence[Raylet], examiners: Mapping[str, Any]
) -> tuple[int, tuple[ClosedPort, ...], dict[str, str]]:
    """How many connections between nodes were tried, which did not come about, and nodes that gave no answer."""
    if len(raylets) < 2:
        return 0, (), {}
    listening = {raylet.node_id: examiners[raylet.node_id].listen.remote() for raylet in raylets}
    chosen, lost = gathered(listening, limit_s=ANSWER_LIMIT_S)
    there = [raylet for raylet in raylets if raylet.node_id in chosen]
    targets = {
        raylet.node_id: [
            (other, what, port)
            for other in _knocked_at(index, there)
            for what, port in (*other.ports, ("any", chosen[other.node_id]))
        ]
        for index, raylet in enumerate(there)
    }
    knocking = {
        node_id: examiners[node_id].closed.remote([(other.address, port) for other, _, port in knocks])
        for node_id, knocks in targets.items()
    }
    found, lost_meanwhile = gathered(knocking, limit_s=ANSWER_LIMIT_S)
    closed = tuple(
        ClosedPort(
            from_node=node_id,
            to_node=targets[node_id][place][0].node_id,
            port=targets[node_id][place][2],
            what=targets[node_id][place][1],
            reason=reason,
        )
        for node_id, places in found.items()
        for place, reason in places
    )
    return sum(len(targets[node_id]) for node_id in found), closed, lost | lost_meanwhile


def _knocked_at(index: int, raylets: Sequence[Raylet]) -> list[Raylet]:
    me = raylets[index]
    others = raylets if len(raylets) <= MOST_FOR_ALL_PAIRS else (raylets[0], raylets[(index + 1) % len(raylets)])
    return [other for other in dict.fromkeys(others) if other is not me]


def dashboard(head: Raylet, examiners: Mapping[str, Any]) -> Dashboard | None:
    """Asked on the head itself, since it listens on loopback there. None where Ray runs without one."""
    from ray._private.worker import global_worker

    url = global_worker.node.address_info.get("webui_url")
    if not url:
        return None
    answers, lost = gathered({head.node_id: examiners[head.node_id].dashboard.remote(url)}, limit_s=ANSWER_LIMIT_S)
    if lost:
        return Dashboard(url=f"http://{url}", status=None, is_public=False, reason=lost[head.node_id])
    found: Dashboard = answers[head.node_id]
    return found


def _reason(error: BaseException) -> str:
    """The last line, which names what was raised: Ray puts a traceback before it."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if lines else type(cause).__name__)[:300]
