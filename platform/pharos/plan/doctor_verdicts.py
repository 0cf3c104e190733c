"""What the facts of machines mean: a verdict and a remedy for each. Pure; what lies between them is beside this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pharos.plan.doctor import Check, Examination, NodeFacts, Room, Verdict, labels
from pharos.plan.doctor_cluster_verdicts import cluster_checks
from pharos.plan.memory import gigabytes
from pharos.plan.words import plural

DECISIVE = ("pharos", "ray", "torch", "deepspeed", "transformers", "peft")
"""What must be the same on every node: workers unpickle each other's values and run each other's collectives."""
LITTLE_MEMORY_BYTES = 2 * 2**30
LITTLE_SHARED_MEMORY_BYTES = 2**30
LITTLE_ROOM_BYTES, NO_ROOM_BYTES = 10 * 10**9, 10**9
FULL_SHARE = 0.95
"""Ray stops writing to a disk that is as full as this (local_fs_capacity_threshold)."""
SWAP_IN_USE_BYTES = 2**30
FEW_FILES = 8192
"""Fewer open files than that and Ray itself warns."""
INSTALL = "pip install -r requirements.lock there, from the same version of Pharos"


def checks(examination: Examination) -> tuple[Check, ...]:
    """Every line of the table, in order."""
    nodes = examination.nodes
    named = labels(nodes)
    head = nodes[0].versions
    judges: tuple[Callable[[NodeFacts], list[Check]], ...] = (
        lambda node: [_versions(node, head)],
        lambda node: [_cpus(node)],
        lambda node: [_memory(node)],
        lambda node: [_gpus(node)],
        lambda node: [_shared_memory(node)],
        lambda node: [_room(room) for room in node.rooms],
        lambda node: [_swap(node)],
        lambda node: [_open_files(node)],
        _paths,
    )
    lines = [line for judge in judges for line in _of_all(nodes, named, judge)]
    lines[:0] = _is_everyone_there(examination)
    return (
        *lines,
        *_drivers(nodes),
        *_storage(examination, named),
        *_tracking(examination, named),
        *_between(examination),
    )


def verdict(lines: tuple[Check, ...]) -> Verdict:
    """The worst of all lines."""
    found = {line.verdict for line in lines}
    return "wrong" if "wrong" in found else "warning" if "warning" in found else "ok"


def _of_all(
    nodes: tuple[NodeFacts, ...], named: Mapping[str, str], judge: Callable[[NodeFacts], list[Check]]
) -> list[Check]:
    """What is the same for several nodes is said once, of all of them."""
    said: dict[Check, list[str]] = {}
    for node in nodes:
        for line in judge(node):
            said.setdefault(line, []).append(named[node.node_id])
    return [replace(line, nodes=() if len(on) == len(nodes) else tuple(on)) for line, on in said.items()]


def _is_everyone_there(examination: Examination) -> list[Check]:
    cluster = examination.cluster
    if cluster is None:
        return []
    num_nodes = len(examination.nodes)
    found = f"{plural(num_nodes, 'node')} of {cluster.address} answered"
    lines = [Check(name="nodes", verdict="ok", found=found)] if num_nodes else []
    lines += [
        Check(
            name="nodes",
            verdict="wrong",
            found=f"no answer: {silent.reason}",
            remedy=INSTALL
            if "No module named" in silent.reason
            else "see `ray status`, and the node's raylet.out; where it hangs, end it and start it again",
            nodes=(silent.address,),
        )
        for silent in cluster.silent
    ]
    if cluster.draining:
        text = "is being drained: nothing new starts there, and it was not looked at"
        lines.append(Check(name="nodes", verdict="warning", found=text, nodes=cluster.draining))
    return lines


def _versions(node: NodeFacts, head: Mapping[str, str]) -> Check:
    missing = [name for name, version in node.versions.items() if not version]
    if missing:
        return Check(name="versions", verdict="wrong", found=f"not installed: {', '.join(missing)}", remedy=INSTALL)
    differing = {name: version for name, version in node.versions.items() if _public(version) != _public(head[name])}
    if differing:
        found = ", ".join(f"{name} {version} (head: {head[name]})" for name, version in differing.items())
        grave = any(name in DECISIVE for name in differing) or _minor(node.versions) != _minor(head)
        return Check(name="versions", verdict="wrong" if grave else "warning", found=found, remedy=INSTALL)
    if node.unmet:
        return Check(name="versions", verdict="warning", found="; ".join(node.unmet), remedy=INSTALL)
    return Check(
        name="versions",
        verdict="ok",
        found=", ".join(f"{name} {_public(version)}" for name, version in node.versions.items()),
    )


def _public(version: str) -> str:
    """Without the build: a head without GPU has torch 2.13.0+cpu, its workers 2.13.0+cu128."""
    return version.partition("+")[0]


def _minor(versions: Mapping[str, str]) -> list[str]:
    return versions["python"].split(".")[:2]


def _cpus(node: NodeFacts) -> Check:
    found = f"{node.num_cpus}"
    if node.ray_cpus is None:
        return Check(name="CPUs", verdict="ok", found=found)
    found += f", of which Ray gives out {node.ray_cpus:g}"
    if node.ray_cpus <= node.num_cpus:
        return Check(name="CPUs", verdict="ok", found=found)
    remedy = f"workers will wait for each other: ray start --num-cpus={node.num_cpus}"
    return Check(name="CPUs", verdict="warning", found=found, remedy=remedy)


def _memory(node: NodeFacts) -> Check:
    # Free memory moves from one moment to the next, so machines of one size are not told apart by it.
    found = gigabytes(node.memory_bytes)
    if node.available_bytes >= LITTLE_MEMORY_BYTES:
        return Check(name="memory", verdict="ok", found=found)
    found += f", only {gigabytes(node.available_bytes)} of it free"
    return Check(name="memory", verdict="warning", found=found, remedy="end what else runs there; see `pharos plan`")


def _gpus(node: NodeFacts) -> Check:
    if not node.gpus:
        return Check(name="GPUs", verdict="ok", found="none")
    kinds = sorted({f"{gpu.name} with {gigabytes(gpu.memory_bytes)}, driver {gpu.driver}" for gpu in node.gpus})
    found = f"{len(node.gpus)}: {'; '.join(kinds)}"
    if not node.torch_cuda:
        remedy = "install a CUDA build of torch; with this one training uses the CPU"
        return Check(name="GPUs", verdict="wrong", found=f"{found}; torch is built without CUDA", remedy=remedy)
    if node.ray_gpus is not None and node.ray_gpus != len(node.gpus):
        found += f"; Ray gives out {node.ray_gpus:g}"
        remedy = f"ray start --num-gpus={len(node.gpus)}, and no CUDA_VISIBLE_DEVICES that hides some"
        return Check(name="GPUs", verdict="warning", found=found, remedy=remedy)
    return Check(name="GPUs", verdict="ok", found=found)


def _drivers(nodes: tuple[NodeFacts, ...]) -> list[Check]:
    drivers = sorted({gpu.driver for node in nodes for gpu in node.gpus})
    if len(drivers) < 2:
        return []
    remedy = "give every node the same driver: NCCL between different ones is not supported"
    return [Check(name="GPUs", verdict="warning", found=f"drivers differ: {', '.join(drivers)}", remedy=remedy)]


def _shared_memory(node: NodeFacts) -> Check:
    room = node.shared_memory
    if room is None:
        return Check(name="shared memory", verdict="ok", found="no /dev/shm")
    found = gigabytes(room.total_bytes)
    if room.total_bytes >= LITTLE_SHARED_MEMORY_BYTES:
        return Check(name="shared memory", verdict="ok", found=found)
    return Check(
        name="shared memory",
        verdict="warning",
        found=found,
        remedy="Ray's objects and NCCL live there: docker run --shm-size=8g, or an emptyDir of medium Memory",
    )


def _room(room: Room) -> Check:
    name, used = "room on disk", 1 - room.free_bytes / max(room.total_bytes, 1)
    found = f"{gigabytes(room.free_bytes)} free for {room.path}"
    if room.free_bytes < NO_ROOM_BYTES or used >= FULL_SHARE:
        found += f", which is {used:.0%} full"
        return Check(name=name, verdict="wrong", found=found, remedy="free some: Ray writes no more on a disk 95% full")
    if room.free_bytes < LITTLE_ROOM_BYTES:
        return Check(name=name, verdict="warning", found=found, remedy="a merged model alone takes as much as its base")
    # The exact number differs between nodes that are equally well.
    return Check(name=name, verdict="ok", found=f"more than {gigabytes(LITTLE_ROOM_BYTES)} free for {room.path}")


def _swap(node: NodeFacts) -> Check:
    if node.swap_used_bytes < SWAP_IN_USE_BYTES:
        return Check(name="swap", verdict="ok", found="not in use")
    found = f"{gigabytes(node.swap_used_bytes)} in use"
    return Check(name="swap", verdict="warning", found=found, remedy="one worker that swaps holds up all: free memory")


def _open_files(node: NodeFacts) -> Check:
    limit = node.max_open_files
    if limit < 0 or limit >= FEW_FILES:
        return Check(name="open files", verdict="ok", found=f"at least {FEW_FILES:,} a process")
    remedy = f"ulimit -Hn 65536 before `ray start`, or LimitNOFILE= of its service ({FEW_FILES:,} at least)"
    return Check(name="open files", verdict="warning", found=f"{limit:,} a process at most", remedy=remedy)


def _paths(node: NodeFacts) -> list[Check]:
    return [
        Check(
            name="paths",
            verdict="wrong",
            found=f"{path} is not there",
            remedy="workers read it: put it on a file system that every node has under this path",
        )
        for path in node.missing_paths
    ]


def _storage(examination: Examination, named: Mapping[str, str]) -> list[Check]:
    place, cluster = examination.storage, examination.cluster
    if examination.storage_problem:
        return [Check(name="storage", verdict="wrong", found=examination.storage_problem)]
    problems = cluster.storage_problems if cluster is not None else {}
    if not problems:
        shared = "is written and read here" if len(examination.nodes) < 2 else "is seen alike by every node"
        return [Check(name="storage", verdict="ok", found=f"{place} {shared}")]
    return [
        Check(
            name="storage",
            verdict="wrong",
            found=f"{place}: {problem}",
            remedy="name a directory that all nodes share, or s3://bucket/prefix or gs://bucket/prefix",
            nodes=(named.get(node_id, node_id[:12]),),
        )
        for node_id, problem in problems.items()
    ]


def _tracking(examination: Examination, named: Mapping[str, str]) -> list[Check]:
    """MLflow is written where the sweep is driven: from here, or from the head where it was submitted."""
    name, place = "tracking", examination.tracking
    if examination.tracking_problem:
        return [Check(name=name, verdict="wrong", found=examination.tracking_problem)]
    is_file = place.startswith("sqlite")
    if is_file and len(examination.nodes) > 1:
        remedy = "name a server: --tracking-uri http://host:5000. A file does only on one machine, or a disk that locks"
        return [Check(name=name, verdict="warning", found=f"{place} is a file", remedy=remedy)]
    lines = [
        Check(
            name=name,
            verdict="wrong" if node.is_head else "warning",
            found=f"{place}: {node.tracking_problem}",
            remedy="open the way to it: a submitted sweep is driven on the head"
            if node.is_head
            else "only a sweep that is driven from this node would need it",
            nodes=(named[node.node_id],),
        )
        for node in examination.nodes
        if node.tracking_problem
    ]
    reached = "can be used" if is_file or len(examination.nodes) < 2 else "answers here and on every node"
    return lines or [Check(name=name, verdict="ok", found=f"{place} {reached}")]


def _between(examination: Examination) -> list[Check]:
    if examination.cluster is None:
        found = "what lies between nodes: no Ray was started for it"
        remedy = "with --address auto (or host:6379) every node of a running cluster is looked at"
        return [Check(name="cluster", verdict="not checked", found=found, remedy=remedy)]
    return cluster_checks(examination, examination.cluster)
