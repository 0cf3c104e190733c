"""A sweep on a Ray cluster, seen from outside: its desk's events. On this machine: whether somebody runs it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pharos.errors import ClusterError, StorageError
from pharos.plan.events import Event
from pharos.plan.paths import SweepPaths
from pharos.sweep.names import NAMESPACE, desk_name, sweep_of
from pharos.sweep.paths import lock_holder
from pharos.track.sweeps import find_sweep, log_of, sweeps_in, which_sweep


class DeskWatch:
    """A desk as its watcher sees it. `is_running` is false once it is gone, with whatever ran the sweep."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self.is_running = True

    def read(self, sequence: int) -> Sequence[Event]:
        """Events from `sequence` on; none once the desk is gone."""
        import ray

        try:
            events: list[Event] = ray.get(self._desk.events_since.remote(sequence))
        except ray.exceptions.RayActorError:
            self.is_running = False
            return []
        return events


@contextmanager
def desk_of(sweep: str | None, *, address: str) -> Iterator[DeskWatch]:
    """Connect to a cluster and find the desk of a sweep; without a name, of the only one that runs there.

    Raises ClusterError where the cluster does not answer, StorageError where no such sweep runs on it.
    """
    from pharos.sweep.ray_session import check_address

    check_address(address)
    import ray

    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise ClusterError(f"--address={address}: Ray does not let this command in: {error}") from error
    try:
        actors = ray.util.list_named_actors(all_namespaces=True)
        desks = [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]
        there = sorted(sweep_of(name) for name in desks if name.startswith(desk_name("")))
        remedy = "One that is starting has no desk yet: try again in a moment; or name another --address."
        name = _chosen(sweep, there, where=f"on the cluster at {address}", remedy=remedy)
        yield DeskWatch(ray.get_actor(desk_name(name), namespace=NAMESPACE))
    finally:
        ray.shutdown()


def sweep_to_watch(sweep: str | None, storage: Path) -> Path:
    """The directory of a sweep; without a name, of the only one in the storage that is being run.

    Raises StorageError where there is none, or more than one.
    """
    if sweep is not None:
        return find_sweep(sweep, storage)
    running = [name for name in sweeps_in(storage) if is_being_run(storage / name)]
    remedy = "Name one that has ended, or another --storage, or a cluster's --address."
    return (storage / _chosen(None, running, where=f"in the storage {storage}", remedy=remedy)).absolute()


def events_since(directory: Path, sequence: int) -> list[Event]:
    """A sweep's events from `sequence` on; of one at an object store, what has come there meanwhile too."""
    return list(log_of(directory).read(sequence))


def is_being_run(directory: Path) -> bool:
    """Whether a driver holds the sweep of this directory."""
    return lock_holder(SweepPaths(directory.parent, directory.name)) is not None


def _chosen(sweep: str | None, there: Sequence[str], *, where: str, remedy: str) -> str:
    if sweep is None and len(there) == 1:
        return there[0]
    if sweep is None and not there:
        raise StorageError(f"No sweep runs {where}. {remedy}")
    if sweep is None:
        raise StorageError(f"{len(there)} sweeps run {where}: {', '.join(there)}. Name one of them.")
    if sweep not in there:
        raise StorageError(f"sweep={sweep} does not run {where}. {which_sweep(sweep, there, none=remedy)}")
    return sweep
