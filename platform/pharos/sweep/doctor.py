"""`pharos doctor`: gathers the facts of this machine, or of every node of a running cluster and of what lies between.

Decides nothing: plan/doctor_verdicts.py says what the facts mean. Of a cluster it takes no CPU, and it leaves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from pharos.errors import ClusterError, StorageError, TrackingError
from pharos.plan.doctor import ClosedPort, Cluster, Dashboard, Examination, NodeFacts, SilentNode, Skew, Wanted
from pharos.store.objects import open_store
from pharos.store.uris import is_store
from pharos.sweep.doctor_node import Examiner, node_facts
from pharos.sweep.paths import check_writable
from pharos.sweep.storage_check import MARKER, check_storage, delete_marker, read_marker, write_marker
from pharos.track.mlflow_client import check_tracking, shown

FACTS_LIMIT_S = 60.0
"""For all nodes together: the first actor on a node starts a process, and a node that hangs must not hang the rest."""
ANSWER_LIMIT_S = 30.0
NUM_PINGS = 5
MOST_FOR_ALL_PAIRS = 16
"""Up to so many nodes each knocks at every other; beyond it, at the head and at the next in the list."""

Say = Callable[[str], None]


def examine_machine(wanted: Wanted) -> Examination:
    """This machine alone. No Ray is started: nothing that is looked at here needs it."""
    started_s = time.monotonic()
    with _left_as_it_was(wanted.storage):
        return Examination(
            nodes=(node_facts(wanted),),
            storage=wanted.storage,
            storage_problem=storage_problem(wanted.storage),
            tracking=shown(wanted.tracking_uri),
            tracking_problem=_tracking_problem(wanted),
            seconds=time.monotonic() - started_s,
        )


def examine_cluster(wanted: Wanted, *, address: str, say: Say) -> Examination:
    """Every living node of the cluster, and what lies between them. say: hears what is being done.

    Raises ClusterError where the cluster cannot be reached, or no node answers.
    """
    from pharos.sweep.draining import gcs_address, gcs_client

    refuse_other_addresses(address)
    gcs = gcs_address(address)
    gcs_client(gcs)  # asks at once for the token, where Ray itself would try for twenty seconds
    started_s = time.monotonic()
    from pharos.sweep.ray_session import ray_session

    say("connecting")
    ray = ray_session(address=gcs, num_cpus=0, num_processes=0, gpus=False, threads_per_worker=1, dashboard_port=None)
    with ray, _left_as_it_was(wanted.storage):
        storage, tracking = storage_problem(wanted.storage), _tracking_problem(wanted)
        nodes, cluster = _look(wanted, gcs=gcs, address=address, storage_is_there=not storage, say=say)
        return Examination(
            nodes=nodes,
            storage=wanted.storage,
            storage_problem=storage,
            tracking=shown(wanted.tracking_uri),
            tracking_problem=tracking,
            cluster=cluster,
            seconds=time.monotonic() - started_s,
        )


def refuse_other_addresses(address: str) -> None:
    """Raise ClusterError for the addresses of Ray's other doors, which a person may have at hand."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return
    door = {"ray": "the Ray client's address", "http": "the jobs API's address", "https": "the jobs API's address"}
    host = rest.rpartition(":")[0] or rest
    raise ClusterError(
        f"--address={address} is {door.get(scheme, 'no address of a cluster')}. The doctor has to be on a node: there, "
        f"--address=auto (or {host}:6379). From elsewhere: ray job submit --address={address} -- python -m pharos "
        "doctor --address auto"
    )


def storage_problem(storage: str) -> str:
    """Why nothing can be written and read back here; empty where it can. A directory is made where it is missing."""
    name, token = f"{MARKER}{uuid4().hex}", uuid4().hex
    try:
        if is_store(storage):
            open_store(storage).check()
        else:
            check_writable(Path(storage))  # which makes it
        try:
            write_marker(storage, name, token)
            return "" if read_marker(storage, name) == token else f"storage={storage}: what is written is not read back"
        finally:
            delete_marker(storage, name)
    except StorageError as error:
        return error.message


@contextmanager
def _left_as_it_was(storage: str) -> Iterator[None]:
    """Take a directory away again that was not there before, as long as it is empty."""
    is_new = not is_store(storage) and not Path(storage).exists()
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):
                Path(storage).rmdir()


def _tracking_problem(wanted: Wanted) -> str:
    try:
        check_tracking(wanted.tracking_uri, wanted.experiment)
    except TrackingError as error:
        return error.message
    return ""


class _Raylet(NamedTuple):
    """A living node as Ray lists it. ports: of its raylet, by what they are for."""

    node_id: str
    address: str
    is_head: bool
    cpus: float
    gpus: float
    ports: tuple[tuple[str, int], ...]


def _look(
    wanted: Wanted, *, gcs: str, address: str, storage_is_there: bool, say: Say
) -> tuple[tuple[NodeFacts, ...], Cluster]:
    import ray
    from ray._private.state import available_resources_per_node, state

    raylets = _raylets(gcs)
    draining = set(state.get_draining_nodes())
    free = available_resources_per_node()
    say(f"asking {len(raylets)} node{'s' if len(raylets) > 1 else ''}")
    examiners = {raylet.node_id: _examiner(raylet) for raylet in raylets}
    try:
        nodes, silent = _facts(wanted, raylets, examiners)
        if not nodes:
            reasons = "; ".join(f"{one.address}: {one.reason}" for one in silent)
            raise ClusterError(f"--address={address}: no node of the cluster gave an answer ({reasons}).")
        answering = {node.node_id for node in nodes}
        say("clocks and ports")
        skews = [skew for node in nodes for skew in _skew(node.node_id, examiners[node.node_id])]
        num_ports, closed = _ports([raylet for raylet in raylets if raylet.node_id in answering], examiners)
        blind: dict[str, str] = {}
        if storage_is_there and len(nodes) > 1:
            say("storage")
            found = check_storage(wanted.storage, may_host=lambda node: node["NodeID"] in answering)
            blind = {one.node_id: one.problem for one in found if one.problem}
        say("an all-reduce")
        from pharos.sweep.doctor_group import all_reduce

        summed = all_reduce(
            nodes,
            examiners,
            has_free_gpus=all(node.torch_cuda and free[node.node_id].get("GPU", 0) >= 1 for node in nodes),
        )
        cluster = Cluster(
            address=gcs,
            silent=tuple(silent),
            draining=tuple(raylet.address for raylet in raylets if raylet.node_id in draining),
            storage_problems=blind,
            skews=tuple(skews),
            num_ports=num_ports,
            closed=tuple(closed),
            all_reduce=summed,
            dashboard=_dashboard(nodes[0], examiners),
        )
    finally:
        for examiner in examiners.values():
            ray.kill(examiner)
    return tuple(nodes), cluster


def _raylets(gcs: str) -> list[_Raylet]:
    """Of every node that Ray calls alive, the head first."""
    import ray

    found = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        resources, is_head = node["Resources"], "node:__internal_head__" in node["Resources"]
        ports = [("raylet", node["NodeManagerPort"]), ("objects", node["ObjectManagerPort"])]
        if is_head:
            ports.append(("GCS", int(gcs.rpartition(":")[2])))
        found.append(
            _Raylet(
                node_id=node["NodeID"],
                address=node["NodeManagerAddress"],
                is_head=is_head,
                cpus=resources.get("CPU", 0.0),
                gpus=resources.get("GPU", 0.0),
                ports=tuple(ports),
            )
        )
    return sorted(found, key=lambda raylet: (not raylet.is_head, raylet.address, raylet.node_id))


def _examiner(raylet: _Raylet) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    pinned = NodeAffinitySchedulingStrategy(node_id=raylet.node_id, soft=False)
    return ray.remote(num_cpus=0, max_restarts=0)(Examiner).options(scheduling_strategy=pinned).remote(raylet.address)


def _facts(
    wanted: Wanted, raylets: Sequence[_Raylet], examiners: dict[str, Any]
) -> tuple[list[NodeFacts], list[SilentNode]]:
    """All at once, within one limit."""
    import ray
    from ray._private.worker import global_worker

    ray_dir = str(Path(global_worker.node.get_session_dir_path()).parent)
    asked = {
        raylet.node_id: examiners[raylet.node_id].facts.remote(wanted, raylet.node_id, raylet.is_head, ray_dir)
        for raylet in raylets
    }
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=FACTS_LIMIT_S)
    nodes, silent = [], []
    for raylet in raylets:
        answer = asked[raylet.node_id]
        if answer not in done:
            reason = f"nothing within {FACTS_LIMIT_S:.0f} s"
            silent.append(SilentNode(node_id=raylet.node_id, address=raylet.address, reason=reason))
            continue
        try:
            nodes.append(_with_ray(ray.get(answer), raylet))
        except Exception as error:  # whatever that node's Python raises, up to a missing module
            silent.append(SilentNode(node_id=raylet.node_id, address=raylet.address, reason=_reason(error)))
    return nodes, silent


def _with_ray(facts: NodeFacts, raylet: _Raylet) -> NodeFacts:
    return replace(facts, ray_cpus=raylet.cpus, ray_gpus=raylet.gpus)


def _skew(node_id: str, examiner: Any) -> list[Skew]:
    """By the quickest of some round trips, as NTP does it."""
    import ray

    trips = []
    for _ in range(NUM_PINGS):
        sent_s = time.time()
        try:
            there_s = ray.get(examiner.clock.remote(), timeout=ANSWER_LIMIT_S)
        except Exception:
            return []
        back_s = time.time()
        trips.append((back_s - sent_s, there_s - (sent_s + back_s) / 2))
    quickest_s, ahead_s = min(trips)
    return [Skew(node_id=node_id, ahead_s=ahead_s, error_s=quickest_s / 2)]


def _ports(raylets: Sequence[_Raylet], examiners: dict[str, Any]) -> tuple[int, list[ClosedPort]]:
    """How many connections were tried between nodes, and which did not come about."""
    import ray

    if len(raylets) < 2:
        return 0, []
    listening = [examiners[raylet.node_id].listen.remote() for raylet in raylets]
    chosen = dict(zip(raylets, ray.get(listening, timeout=ANSWER_LIMIT_S), strict=True))
    asked = []
    for index, raylet in enumerate(raylets):
        others = [other for other in raylets if other is not raylet]
        if len(raylets) > MOST_FOR_ALL_PAIRS:
            others = list(
                dict.fromkeys(o for o in (raylets[0], raylets[(index + 1) % len(raylets)]) if o is not raylet)
            )
        targets = [(other, what, port) for other in others for what, port in (*other.ports, ("any", chosen[other]))]
        knocking = examiners[raylet.node_id].closed.remote([(other.address, port) for other, _, port in targets])
        asked.append((raylet, targets, knocking))
    closed = []
    for raylet, targets, knocking in asked:
        for place, reason in ray.get(knocking, timeout=ANSWER_LIMIT_S + len(targets)):
            other, what, port = targets[place]
            closed.append(
                ClosedPort(from_node=raylet.node_id, to_node=other.node_id, port=port, what=what, reason=reason)
            )
    return sum(len(targets) for _, targets, _ in asked), closed


def _dashboard(head: NodeFacts, examiners: dict[str, Any]) -> Dashboard | None:
    """Asked on the head itself: it listens on loopback there. None where Ray runs without one."""
    import ray
    from ray._private.worker import global_worker

    url = global_worker.node.address_info.get("webui_url")
    if not url:
        return None
    found: Dashboard = ray.get(examiners[head.node_id].dashboard.remote(url), timeout=ANSWER_LIMIT_S)
    return found


def _reason(error: BaseException) -> str:
    """The last line, which names what was raised: Ray puts a traceback before it."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if lines else type(cause).__name__)[:300]
