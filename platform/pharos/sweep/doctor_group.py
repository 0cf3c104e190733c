"""The all-reduce of `pharos doctor`: one process a node, the backend and the way to each other that training takes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, perf_counter
from typing import Any

from pharos.plan.doctor import AllReduce, NodeFacts
from pharos.sweep.interface import talk_where_nodes_do

GROUP_TIMEOUT_S = 30.0
"""How long the processes may take to find each other; torch's own half hour is for training."""
LIMIT_S = 75.0
"""Of one try in all: a process is started, torch is loaded, and the group formed."""
FIRST_BYTES = 2**20
MOST_BYTES = {"gloo": 64 * 2**20, "nccl": 512 * 2**20}
ABOUT_S = 0.5
"""The size is chosen so that one all-reduce takes about this long."""
NUM_REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where the processes of a group find each other."""

    backend: str
    host: str
    port: int
    world_size: int


def all_reduce(nodes: Sequence[NodeFacts], examiners: dict[str, Any], *, has_free_gpus: bool) -> AllReduce | None:
    """Measure over all of these nodes, or None where there is but one. Raises nothing: a problem is part of the answer.

    has_free_gpus: every node has a GPU that Ray can give out now; then NCCL is measured.
    """
    import ray

    if len(nodes) < 2:
        return None
    backend = "nccl" if has_free_gpus else "gloo"
    first = nodes[0]
    problem = ""
    # Of gloo, which a worker tells itself where to talk, there is nothing else to try.
    for with_interface in (False, True) if backend == "nccl" else (False,):
        try:
            port = ray.get(examiners[first.node_id].free_port.remote(), timeout=GROUP_TIMEOUT_S)
            meeting = Meeting(backend=backend, host=first.address, port=port, world_size=len(nodes))
            size, seconds = _once(nodes, meeting, with_interface=with_interface)
        except Exception as error:
            problem = problem or _reason(error)
            continue
        return AllReduce(
            backend=backend,
            num_nodes=len(nodes),
            size_bytes=size,
            seconds=seconds,
            needs_interface=_interfaces(nodes) if with_interface else "",
        )
    return AllReduce(backend=backend, num_nodes=len(nodes), problem=problem)


def _once(nodes: Sequence[NodeFacts], meeting: Meeting, *, with_interface: bool) -> tuple[int, float]:
    """Bytes of the tensor and the slowest node's seconds. Raises whatever a node raises, or TimeoutError."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # max_calls: a process whose group did not come about is of no use for a second try.
    options = {"num_cpus": 0, "num_gpus": int(meeting.backend == "nccl"), "max_retries": 0, "max_calls": 1}
    measuring = ray.remote(**options)(measure)
    parts = [
        measuring.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node.node_id, soft=False)).remote(
            meeting, rank, node.interface if with_interface else ""
        )
        for rank, node in enumerate(nodes)
    ]
    deadline_s = monotonic() + LIMIT_S
    waiting = list(parts)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=max(0.0, deadline_s - monotonic()))
            if not done:
                raise TimeoutError(f"no sum within {LIMIT_S:.0f} s")
            ray.get(done)  # the first that fails is the one that knows why: the others wait for it
        answers: list[tuple[int, float]] = ray.get(parts)
    finally:
        for part in parts:
            ray.cancel(part, force=True)
    return answers[0][0], max(seconds for _, seconds in answers)


def measure(meeting: Meeting, rank: int, interface: str) -> tuple[int, float]:
    """On a node: join the group, sum some times, and say how large and how quick. RuntimeError: a wrong sum."""
    talk_where_nodes_do()
    if interface:
        os.environ["NCCL_SOCKET_IFNAME"] = interface
    import torch
    import torch.distributed as dist

    dist.init_process_group(
        meeting.backend,
        init_method=f"tcp://{meeting.host}:{meeting.port}",
        rank=rank,
        world_size=meeting.world_size,
        timeout=timedelta(seconds=GROUP_TIMEOUT_S),
    )
    device = torch.device("cuda", 0) if meeting.backend == "nccl" else torch.device("cpu")
    try:
        _timed(FIRST_BYTES, device, meeting.world_size)  # connects, and warms up
        quick_s = torch.tensor([_timed(FIRST_BYTES, device, meeting.world_size)], device=device)
        dist.all_reduce(quick_s, op=dist.ReduceOp.MAX)
        growth = max(1, int(ABOUT_S / max(quick_s.item(), 1e-6)))
        size = min(FIRST_BYTES * growth, MOST_BYTES[meeting.backend])
        return size, min(_timed(size, device, meeting.world_size) for _ in range(NUM_REPEATS))
    finally:
        dist.destroy_process_group()


def _timed(num_bytes: int, device: Any, world_size: int) -> float:
    """Seconds of one all-reduce over ones, which must become the number of nodes."""
    import torch
    import torch.distributed as dist

    summed = torch.ones(num_bytes // 4, device=device)
    dist.barrier()
    started_s = perf_counter()
    dist.all_reduce(summed)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = perf_counter() - started_s
    if not bool((summed == world_size).all()):
        raise RuntimeError(f"the sum of {world_size} ones was {summed[0].item()}")
    return seconds


def _interfaces(nodes: Sequence[NodeFacts]) -> str:
    return " or ".join(sorted({node.interface for node in nodes})) + (
        "" if len({node.interface for node in nodes}) == 1 else ", whichever a node has"
    )


def _reason(error: BaseException) -> str:
    """The line that says most, without places in the source of others: Ray wraps what a task raised in a traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return re.sub(r"\[/[^\]]*\] ", "", lines[0] if lines else type(cause).__name__)[:200]
