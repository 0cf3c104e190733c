"""`pharos doctor`: gathers the facts of this machine, or of every node of a running cluster and of what lies between.

Decides nothing: plan/doctor_verdicts.py says what the facts mean. Of a cluster it takes no CPU, and it leaves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from pharos.errors import ClusterError, StorageError, TrackingError
from pharos.plan.doctor import Cluster, Examination, NodeFacts, SilentNode, Wanted
from pharos.plan.words import plural
from pharos.store.objects import open_store
from pharos.store.uris import is_store
from pharos.sweep.doctor_between import Raylet, dashboard, gathered, list_raylets, ports, skews
from pharos.sweep.doctor_node import Examiner, node_facts
from pharos.sweep.paths import check_writable
from pharos.sweep.storage_check import MARKER, check_storage, delete_marker, read_marker, write_marker
from pharos.track.mlflow_client import check_tracking, shown

FACTS_LIMIT_S = 60.0
"""For all nodes together: the first actor on a node starts a process, and a node that hangs must not hang the rest."""

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


def _look(
    wanted: Wanted, *, gcs: str, address: str, storage_is_there: bool, say: Say
) -> tuple[tuple[NodeFacts, ...], Cluster]:
    import ray
    from ray._private.state import available_resources_per_node, state

    from pharos.sweep.doctor_group import all_reduce

    drained = state.get_draining_nodes() or {}
    alive = list_raylets(gcs)
    raylets = [raylet for raylet in alive if raylet.node_id not in drained]  # nothing can start on the others
    if not raylets:
        raise ClusterError(f"--address={address}: every node of the cluster is being drained. Start others.")
    free = available_resources_per_node()
    say(plural(len(raylets), "node"))
    examiners = {raylet.node_id: _examiner(raylet) for raylet in raylets}
    try:
        nodes, lost = _facts(wanted, raylets, examiners)
        if not nodes:
            reasons = "; ".join(f"{raylet.address}: {lost[raylet.node_id]}" for raylet in raylets)
            raise ClusterError(f"--address={address}: no node of the cluster gave an answer ({reasons}).")
        answering = [raylet for raylet in raylets if raylet.node_id not in lost]
        say("clocks and ports")
        clocks = tuple(skew for raylet in answering for skew in skews(raylet, examiners))
        num_ports, closed, lost_meanwhile = ports(answering, examiners)
        lost |= lost_meanwhile
        say("the storage")
        blind = _blind(wanted.storage, {node.node_id for node in nodes}) if storage_is_there and len(nodes) > 1 else {}
        say("an all-reduce")
        there = [node for node in nodes if node.node_id not in lost]
        has_gpus = all(node.torch_cuda and free.get(node.node_id, {}).get("GPU", 0) >= 1 for node in there)
        cluster = Cluster(
            address=gcs,
            silent=tuple(
                SilentNode(node_id=raylet.node_id, address=raylet.address, reason=lost[raylet.node_id])
                for raylet in raylets
                if raylet.node_id in lost
            ),
            draining=tuple(raylet.address for raylet in alive if raylet.node_id in drained),
            storage_problems=blind,
            skews=clocks,
            num_ports=num_ports,
            closed=closed,
            all_reduce=all_reduce(there, examiners, has_free_gpus=has_gpus),
            dashboard=dashboard(raylets[0], examiners),
        )
    finally:
        for examiner in examiners.values():
            ray.kill(examiner)
    return tuple(nodes), cluster


def _examiner(raylet: Raylet) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    pinned = NodeAffinitySchedulingStrategy(node_id=raylet.node_id, soft=False)
    return ray.remote(num_cpus=0, max_restarts=0)(Examiner).options(scheduling_strategy=pinned).remote(raylet.address)


def _facts(
    wanted: Wanted, raylets: Sequence[Raylet], examiners: dict[str, Any]
) -> tuple[list[NodeFacts], dict[str, str]]:
    """All at once, within one limit: what answered, the head first, and why the others did not, by node."""
    from ray._private.worker import global_worker

    ray_dir = str(Path(global_worker.node.get_session_dir_path()).parent)
    asked = {
        raylet.node_id: examiners[raylet.node_id].facts.remote(wanted, raylet.node_id, raylet.is_head, ray_dir)
        for raylet in raylets
    }
    facts, lost = gathered(asked, limit_s=FACTS_LIMIT_S)
    nodes = [
        replace(facts[raylet.node_id], ray_cpus=raylet.cpus, ray_gpus=raylet.gpus)
        for raylet in raylets
        if raylet.node_id in facts
    ]
    return nodes, lost


def _blind(storage: str, answering: set[str]) -> dict[str, str]:
    """Why nodes do not see the storage, by node."""
    try:
        found = check_storage(storage, may_host=lambda node: node["NodeID"] in answering)
    except StorageError as error:
        return dict.fromkeys(answering, error.message)
    return {one.node_id: one.problem for one in found if one.problem}
