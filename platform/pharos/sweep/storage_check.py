"""Whether every node of a cluster sees the storage: a marker goes out from here, and one comes back from each node.

Wanted before the first pool, and by `pharos doctor`. Ray is connected already; nothing stays in the storage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pharos.errors import StorageError
from pharos.store.objects import open_store
from pharos.store.uris import checked_storage, is_store
from pharos.sweep.names import HEAD
from pharos.sweep.nodes import worker_places
from pharos.sweep.sharing import SEEN, shared

if TYPE_CHECKING:
    from pharos.sweep.staging import Staged

TIMEOUT_S = 60.0
"""How long the nodes may take in all: the first task on a node starts a process, and a mount may hang."""
MARKER = ".pharos-marker-"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStorage:
    """One node of the cluster. problem: why it does not see the storage; none where it does."""

    node_id: str
    address: str
    problem: str | None = None


def check_storage(
    storage: str | Path, *, timeout_s: float = TIMEOUT_S, may_host: Callable[[dict[str, Any]], bool] | None = None
) -> tuple[NodeStorage, ...]:
    """Every alive node, and whether it reads what is written here and is read in turn. Empty for a cluster of one node.

    Args:
        storage: an absolute path, or the URI of an object store; it is there already.
        timeout_s: for all nodes together.
        may_host: which nodes matter, asked with an entry of `ray.nodes()`; none: all of them.

    Raises StorageError where the marker cannot be written here.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node for node in alive if may_host is None or may_host(node)]
    if len(alive) < 2 or not nodes:
        return ()
    text, token = checked_storage(str(storage)), uuid4().hex
    name = f"{MARKER}{token}"
    names = {node["NodeID"]: f"{name}-{node['NodeID']}" for node in nodes}
    write_marker(text, name, token)
    try:
        # max_retries: a node that is lost meanwhile is one that does not see it.
        exchange = ray.remote(num_cpus=0, max_retries=0)(exchange_markers)
        asked = {
            node_id: exchange.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
            ).remote(text, name, token, answer)
            for node_id, answer in names.items()
        }
        done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
        found = []
        for node in nodes:
            answer = asked[node["NodeID"]]
            if answer in done:
                problem = _outcome(answer) or _not_back(text, names[node["NodeID"]], token)
            else:
                ray.cancel(answer, force=True)
                problem = f"it gave no answer within {timeout_s:.0f} s"
            found.append(NodeStorage(node_id=node["NodeID"], address=node["NodeManagerAddress"], problem=problem))
        return tuple(found)
    finally:
        for marker in (name, *names.values()):
            delete_marker(text, marker)


def check_before_pools(staged: Staged) -> None:
    """Raise StorageError, naming them, where nodes that will hold the desk or a worker do not see the storage."""
    pool = staged.spec.pool

    def may_host(node: dict[str, Any]) -> bool:
        return worker_places(node, pool) > 0 or any(name in node["Resources"] for name in HEAD)

    storage = shared(staged.storage)
    refuse_blind_nodes(storage, check_storage(storage, may_host=may_host))


def refuse_blind_nodes(storage: str | Path, nodes: Sequence[NodeStorage]) -> None:
    """Raise StorageError, naming them, where nodes do not see the storage."""
    blind = [node for node in nodes if node.problem is not None]
    if not blind:
        return
    listed = "\n".join(f"  node {node.address} ({node.node_id[:12]}): {node.problem}" for node in blind)
    raise StorageError(
        f"storage={storage} is not seen by {len(blind)} of {len(nodes)} nodes of the cluster:\n{listed}\n{SEEN}"
    )


def exchange_markers(storage: str, name: str, token: str, answer: str) -> str | None:
    """On a node: read the marker that lies in the storage, and leave one. Why that cannot be; none where it can."""
    try:
        found = read_marker(storage, name)
        if found is None:
            return "what is written to it elsewhere is not there"
        if found != token:
            return "another file is there"
        write_marker(storage, answer, token)
    except StorageError as error:
        return error.message.removeprefix(f"storage={storage}").lstrip(": ")
    return None


def write_marker(storage: str, name: str, token: str) -> None:
    """Raise StorageError where the storage cannot be written."""
    if is_store(storage):
        open_store(storage).write(name, token.encode())
        return
    try:
        Path(storage, name).write_text(token)
    except OSError as error:
        raise StorageError(f"storage={storage} cannot be written: {error.strerror}") from error


def read_marker(storage: str, name: str) -> str | None:
    """None where there is no such marker."""
    if is_store(storage):
        content = open_store(storage).read(name)
        return None if content is None else content.decode(errors="replace")
    try:
        return Path(storage, name).read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"storage={storage} cannot be read: {error.strerror}") from error


def delete_marker(storage: str, name: str) -> None:
    """There may be none, and a storage that is gone meanwhile is said elsewhere."""
    try:
        if is_store(storage):
            open_store(storage).delete(name)
        else:
            Path(storage, name).unlink(missing_ok=True)
    except (StorageError, OSError):
        return


def _outcome(answer: Any) -> str | None:
    import ray

    try:
        return None if (said := ray.get(answer)) is None else str(said)
    except ray.exceptions.RayError as error:
        return f"the check could not run there ({type(error).__name__})"


def _not_back(storage: str, name: str, token: str) -> str | None:
    return None if read_marker(storage, name) == token else "what it writes there is not there for others"
