"""The pools of a sweep as the desk sees them: which are asked for, open or going home, and where they failed.

Plain values and no waiting: the desk moves trials, this says what becomes of their pools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pharos.plan.pools import pool_name, pool_number, surplus_pools
from pharos.plan.seating import free_seats

FAILURES_TO_AVOID = 3
"""A node on which this many pools began to fail is left alone."""


@dataclass(slots=True)
class OpenPool:
    """A pool whose workers are up. seats: trial number by taken seat. Orders for an earlier `attempt` of it are void.

    nodes: of its ranks. leaving: why it is to come back before its round is over; none while it may stay.
    """

    base_key: str
    workers: int
    num_seats: int
    attempt: int
    nodes: tuple[str, ...] = ()
    seats: dict[int, int] = field(default_factory=dict)
    leaving: str | None = None

    @property
    def free(self) -> list[int]:
        """The free seats, in the order in which to fill them."""
        return free_seats(self.seats, num_seats=self.num_seats, seats_per_worker=-(-self.num_seats // self.workers))

    def nodes_of(self, ranks: Sequence[int]) -> tuple[str, ...]:
        """The nodes of these ranks, each once."""
        return tuple(sorted({self.nodes[rank] for rank in ranks if rank < len(self.nodes)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOrders:
    """What the keeper of the pools has to do. cancel: asked for, not up yet and no longer wanted."""

    open: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class PoolBoard:
    """Pools have the places pool-0, pool-1, ... up to `max_pools`; one that is lost gives its place to the next."""

    max_pools: int
    max_restarts: int
    open: dict[str, OpenPool] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    going: set[str] = field(default_factory=set)
    given_up: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    node_failures: Counter[str] = field(default_factory=Counter)
    avoided: set[str] = field(default_factory=set)

    def staffing(self, wanted: int) -> PoolOrders:
        """Ask for pools, or take back what was asked for, so that `wanted` there are or will be."""
        staying = [name for name, pool in self.open.items() if pool.leaving is None]
        missing = wanted - len(staying) - len(self.asked)
        taken = {*self.open, *self.asked, *self.going, *self.given_up}
        places = [name for name in map(pool_name, range(self.max_pools)) if name not in taken]
        opened = tuple(places[: max(0, missing)])
        surplus = sorted(self.asked, key=pool_number, reverse=True)[: max(0, -missing)]
        self.asked = (self.asked | set(opened)) - set(surplus)
        self.going |= set(surplus)
        return PoolOrders(open=opened, cancel=tuple(surplus), avoided=tuple(sorted(self.avoided)))

    def surplus(self, wanted: int) -> list[str]:
        """The open pools to close so that `wanted` stay."""
        return surplus_pools({name: len(pool.seats) for name, pool in self.open.items()}, wanted)

    def opened(self, name: str, pool: OpenPool) -> None:
        self.asked.discard(name)
        self.attempts[name] += 1
        self.open[name] = pool

    def closes(self, name: str) -> None:
        """It was told to close; its place is free once its launcher has ended."""
        del self.open[name]
        self.going.add(name)

    def ended(self, name: str) -> None:
        """Its launcher has ended, whether it failed or not."""
        self.open.pop(name, None)
        self.asked.discard(name)
        self.going.discard(name)

    def failed(
        self, name: str, reason: str, nodes: Iterable[str], *, places: Mapping[str, int], workers: int
    ) -> list[str]:
        """Count a failure of a pool and of the nodes where it began; returns those that are avoided from now on.

        places: of every node, how many workers it could hold. Where the other nodes have no room for the `workers` of
        a pool, none is avoided: a pool that fails says more than one that never comes.
        """
        self.failures[name] += 1
        if self.failures[name] > self.max_restarts:
            self.given_up[name] = reason
        self.node_failures.update(set(nodes))
        worn = []
        for node in sorted(set(nodes) - self.avoided):
            elsewhere = sum(room for other, room in places.items() if other not in self.avoided | {node})
            if self.node_failures[node] >= FAILURES_TO_AVOID and elsewhere >= workers:
                self.avoided.add(node)
                worn.append(node)
        return worn

    def worked(self, name: str) -> None:
        """It finished a round: what failed before counts no longer."""
        self.failures[name] = 0

    def hopeless(self) -> str | None:
        """Why it is no use to go on, if so: a place was given up, and no other has a pool that works."""
        return None if self.open or not self.given_up else next(reversed(self.given_up.values()))

    def seats_trial(self, number: int) -> bool:
        """Whether a trial sits in an open pool."""
        return any(number in pool.seats.values() for pool in self.open.values())

    def on_nodes(self, nodes: Iterable[str]) -> dict[str, list[str]]:
        """Pools that have ranks on one of these nodes and may stay, each with those of the nodes that it is on."""
        hit = {name: sorted(set(pool.nodes) & set(nodes)) for name, pool in self.open.items() if pool.leaving is None}
        return {name: shared for name, shared in hit.items() if shared}
