"""Wall time of a sweep by phase, for result.json: each second of the driver belongs to the phase it was in."""

from __future__ import annotations

import time
from collections.abc import Callable


class Phases:
    """`enter(name)` ends the phase before it; entering a name again adds to it."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._name: str | None = None
        self._since = 0.0
        self._seconds: dict[str, float] = {}

    def enter(self, name: str) -> None:
        self.seconds()
        self._name, self._since = name, self._now()

    def seconds(self) -> dict[str, float]:
        """Seconds by phase so far, the running one included."""
        if self._name is not None:
            now = self._now()
            self._seconds[self._name] = self._seconds.get(self._name, 0.0) + now - self._since
            self._since = now
        return dict(self._seconds)
