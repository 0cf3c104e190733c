"""A sweep's status for programs, between the lines for people in a job's output, where `pharos status` reads it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pharos.plan import events as ev
from pharos.plan.ledger import Ledger
from pharos.plan.sweep_status import status_line, status_of

INTERVAL_S = 5.0
"""Between two lines; what begins or ends a sweep is told at once."""


class View(Protocol):
    def phase(self, text: str) -> None: ...

    def update(self, events: Sequence[ev.Event]) -> None: ...


class StatusLines:
    """Tells another view all it hears, and writes a line now and then. Of any thread."""

    def __init__(
        self, view: View, *, sweep: str, write: Callable[[str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._view, self._sweep, self._write, self._now = view, sweep, write, now
        self._ledger, self._phase = Ledger(), ""
        self._written_s = float("-inf")
        self._lock = threading.Lock()

    def phase(self, text: str) -> None:
        self._view.phase(text)
        with self._lock:
            self._phase = text
            self._tell(is_urgent=False)

    def update(self, events: Sequence[ev.Event]) -> None:
        self._view.update(events)
        with self._lock:
            for event in events:
                self._ledger.apply(event)
            self._tell(is_urgent=any(isinstance(event, ev.SweepStarted | ev.SweepEnded) for event in events))

    def _tell(self, *, is_urgent: bool) -> None:
        if self._ledger.started is None or (not is_urgent and self._now() < self._written_s + INTERVAL_S):
            return
        self._written_s = self._now()
        self._write(status_line(status_of(self._ledger, sweep=self._sweep, phase=self._phase)))
