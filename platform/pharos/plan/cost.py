"""How many node-hours a sweep has used, and what they cost, as a fold over its events. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from pharos.plan import events as ev


@dataclass(slots=True, kw_only=True)
class NodeTime:
    """Time of the nodes that hold workers of open pools; a node that two pools share counts once.

    A log that does not say on which nodes a pool lies counts one node for all such pools, and a sweep that died without
    a word counts up to its last event.
    """

    node_s: float = 0.0
    until_s: float = 0.0
    nodes: dict[str, frozenset[str]] = field(default_factory=dict)
    """Of each open pool."""

    def apply(self, event: ev.Event) -> None:
        if self.nodes and not isinstance(event, ev.SweepStarted):
            self.node_s += self.num_nodes * max(event.time_s - self.until_s, 0.0)
        self.until_s = max(self.until_s, event.time_s)
        match event:
            case ev.SweepStarted() | ev.SweepEnded():
                self.nodes.clear()
            case ev.PoolOpened():
                self.nodes[event.pool] = frozenset(event.nodes) or frozenset({""})
            case ev.PoolLost() | ev.PoolClosed():
                self.nodes.pop(event.pool, None)

    @property
    def num_nodes(self) -> int:
        return len(frozenset().union(*self.nodes.values()))

    def cost(self, price_per_node_hour: float) -> float:
        """In the price's currency."""
        return self.node_s / 3600 * price_per_node_hour
