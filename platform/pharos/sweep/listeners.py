"""Carries events from the desk to whoever listens (console, MLflow): a thread that polls, so nothing waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from pharos.plan.events import Event

POLL_S = 0.3

Listener = Callable[[Sequence[Event]], None]


@contextmanager
def listening(desk: Any, listeners: Sequence[Listener]) -> Iterator[None]:
    """While it is open every listener gets every event of the sweep once, in order; on leaving, the rest of them."""
    stop = threading.Event()
    heard = 0

    def hear() -> None:
        nonlocal heard
        events = ray.get(desk.events_since.remote(heard))
        if events:
            heard += len(events)
            for listener in listeners:
                listener(events)

    def run() -> None:
        while not stop.wait(POLL_S):
            hear()

    thread = threading.Thread(target=run, name="pharos-listeners", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        hear()
