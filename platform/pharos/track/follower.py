"""A thread that carries the event log to a listener, such as MLflow, so that training never waits for a server.

The log is the spool: what a listener that is away has not taken stays there, in this process or for the next one, and
memory stays bounded however long it is away. Nothing here knows MLflow.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from itertools import islice
from math import inf
from time import monotonic, sleep
from typing import Protocol

from pharos.errors import StorageError
from pharos.plan.events import Event, SweepStarted
from pharos.track.event_log import EventLog

LONGEST_WAIT_S = 30.0
MAX_EVENTS_PER_WRITE = 500

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """A store that takes events in order, and takes the same ones again without harm. Any call may raise."""

    def attach(self, sweep: str, first_time_s: float) -> int:
        """The sequence number of the next event that it wants of the sweep whose log begins at that time."""

    def write(self, events: Sequence[Event]) -> None:
        """Take events that follow each other."""


class Follower:
    """Follows a log from where its listener stopped. Starts at once; events already in the log are caught up with.

    interval_s: pause between writes, so that events go in batches; after an error it doubles up to LONGEST_WAIT_S.
    """

    def __init__(self, log: EventLog, listener: Listener, *, interval_s: float = 1.0) -> None:
        self.last_error: str | None = None
        """Why the listener does not take events now; none while it does."""
        self._log = log
        self._listener = listener
        self._interval_s = interval_s
        self._logged = log.next_sequence()
        self._written = 0
        self._deadline_s = inf
        self._wake = threading.Event()
        self._closing = threading.Event()
        # A daemon: a server that hangs must not keep the process from ending. The log has what is left.
        self._thread = threading.Thread(target=self._run, name="pharos-follower", daemon=True)
        self._thread.start()

    def publish(self, events: Sequence[Event]) -> None:
        """Say that these events are in the log now. Returns at once."""
        if events:
            self._logged = events[-1].sequence + 1
            self._wake.set()

    @property
    def backlog(self) -> int:
        """Events in the log that the listener has not taken."""
        return max(self._logged - self._written, 0)

    def close(self, timeout_s: float) -> int:
        """Hand over what is left, for at most `timeout_s`, and return how many events the listener did not take.

        A follower of the same log that starts later hands those over.
        """
        self._deadline_s = monotonic() + timeout_s
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return self.backlog

    def _run(self) -> None:
        attached = False
        wait_s = self._interval_s
        while not self._is_over():
            try:
                if self._logged and not attached:
                    self._attach()
                    attached = True
                if attached:
                    self._catch_up()
            except Exception as error:
                # Whatever a store raises, training goes on. The next try asks the store anew where it stands.
                attached, wait_s = False, min(2 * wait_s, LONGEST_WAIT_S)
                self._say_lagging(error)
            else:
                wait_s = self._interval_s
                self._say_caught_up()
            self._pause(wait_s)

    def _attach(self) -> None:
        first = next(self._log.read())
        if not isinstance(first, SweepStarted):
            raise StorageError(f"{self._log.directory}: the event log begins with {first.kind}, not sweep_started.")
        wanted = self._listener.attach(first.sweep, first.time_s)
        # A log restored from a backup can be behind its listener.
        self._written = min(wanted, self._logged)

    def _catch_up(self) -> None:
        while not self._is_over():
            events = list(islice(self._log.read(self._written), MAX_EVENTS_PER_WRITE))
            if not events:
                return
            self._listener.write(events)
            self._written = events[-1].sequence + 1

    def _is_over(self) -> bool:
        return self._closing.is_set() and (not self.backlog or monotonic() >= self._deadline_s)

    def _pause(self, wait_s: float) -> None:
        """Wait so that events gather, or that a server comes back; then until there is something to do."""
        if self._closing.is_set():
            sleep(max(min(self._interval_s, self._deadline_s - monotonic()), 0.0))
            return
        self._closing.wait(wait_s)
        self._wake.clear()
        if not self.backlog and not self._closing.is_set():
            self._wake.wait()

    def _say_lagging(self, error: Exception) -> None:
        if self.last_error is None:
            logger.warning("%s The sweep goes on; its events are kept and handed over later.", error)
        self.last_error = str(error)

    def _say_caught_up(self) -> None:
        if self.last_error is not None:
            logger.info("Tracking answers again and has caught up.")
        self.last_error = None
