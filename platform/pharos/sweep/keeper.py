"""Keeps as many pools as the desk wants: starts their launchers, sees them end, and tells the desk which nodes go.

A thread of the driver. It decides nothing: the desk says what to open and what to take back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from time import monotonic, sleep
from typing import Any

import ray
from ray._private.state import state as cluster_state

from pharos.spec.model import PoolSpec
from pharos.sweep.nodes import worker_places
from pharos.sweep.pool import PoolFailure

POLL_S = 0.5

Launch = Callable[[str, Sequence[str]], Any]
"""Starts the launcher of a pool by its name, away from some nodes; returns Ray's reference to its outcome."""


class PoolKeeper:
    """The launchers of a sweep's pools. error: what ended the keeping, where nobody had asked for that."""

    def __init__(self, desk: Any, pool: PoolSpec, launch: Launch) -> None:
        self._desk, self._pool, self._launch = desk, pool, launch
        self._launched: dict[str, Any] = {}
        self._sends_home: tuple[str, bool] | None = None
        self._all_home = False
        self._over = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pharos-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Start no pool any more, and take back those that still run."""
        self._over.set()
        self._thread.join()
        for launched in self._launched.values():
            ray.cancel(launched)

    def send_home(self, reason: str, *, at_once: bool = False, timeout_s: float = inf) -> None:
        """Have all pools closed, and wait until their launchers have ended. at_once: in the middle of their rounds."""
        self._sends_home = (reason, at_once)
        deadline_s = monotonic() + timeout_s
        while self._thread.is_alive() and monotonic() < deadline_s and not self._all_home:
            sleep(0.05)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._tend()
                self._over.wait(POLL_S)
        except Exception as error:  # the driver raises it: a sweep without its keeper would wait for ever
            self.error = error

    def _tend(self) -> None:
        for name, launched in list(self._launched.items()):
            if ray.wait([launched], timeout=0)[0]:
                del self._launched[name]
                failure = _outcome(launched)
                reason, ranks = (None, ()) if failure is None else (failure.reason, failure.ranks)
                ray.get(self._desk.pool_ended.remote(name, reason, ranks))
        places = {node["NodeID"]: worker_places(node, self._pool) for node in ray.nodes() if node["Alive"]}
        if self._sends_home is not None:
            reason, at_once = self._sends_home
            ray.get(self._desk.send_home.remote(reason, at_once=at_once))
            self._all_home = not self._launched
        draining = cluster_state.get_draining_nodes() or {}
        orders = ray.get(self._desk.staffing.remote(places=places, draining=draining))
        for name in orders.open:
            # A desk that was started again asks anew for pools that are on their way; they must not come twice.
            if name not in self._launched:
                self._launched[name] = self._launch(name, orders.avoided)
        for name in orders.cancel:
            ray.cancel(self._launched[name])


@contextmanager
def keeping(desk: Any, pool: PoolSpec, launch: Launch) -> Iterator[PoolKeeper]:
    """While it is open, the pools that the desk wants are there; on leaving, none is."""
    keeper = PoolKeeper(desk, pool, launch)
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()


def _outcome(launched: Any) -> PoolFailure | None:
    """How a launcher ended: as it says, or with the reason for which it could not say anything."""
    try:
        outcome: PoolFailure | None = ray.get(launched)
    except ray.exceptions.RayError as error:
        return PoolFailure(reason=f"its launcher was lost: {type(error).__name__}")
    return outcome
