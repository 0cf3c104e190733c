"""The watcher of a node: it hears the cloud's notice, and has Ray drain the node, so that its pools can leave in time.

Nothing in open-source Ray does this by itself. The watcher goes on after every error, and says each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pharos.plan.notices import Notice
from pharos.sweep.metadata import ASK_ERRORS, GCP_HOLD_S, Cloud

LONGEST_PAUSE_S = 30.0
"""Between two questions while the metadata service fails; notices can be as short as that."""
RETRY_PAUSE_S = 1.0
"""Between two tries to mark the node: seconds count then."""
PATIENCE_S = 120.0
"""How long marking is tried where the notice gave no deadline."""
SAY_EVERY = 10
"""Of failures in a row, the first is said and then every tenth."""

Say = Callable[[str], None]
Mark = Callable[[Notice], str]
"""Marks this machine's node as draining; returns what it did, in words. Any exception is said and it is tried again."""


@dataclass(slots=True, kw_only=True)
class Watcher:
    """Asks `cloud` every poll_s seconds and hands each notice to `mark` until that succeeds or its time is over."""

    cloud: Cloud
    mark: Mark
    say: Say
    poll_s: float
    pause: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time
    _handled: str | None = None
    _pending: Notice | None = None
    _given_up_s: float = 0.0
    _failures: int = 0

    def watch(self) -> None:
        """Never returns; ends by an exception of `pause`, `say` or a signal's handler alone."""
        while True:
            self.pause(self.step())

    def step(self) -> float:
        """Ask once, and act. Returns the seconds to wait before the next step."""
        if self._pending is not None:
            return self._try_to_mark(self._pending)
        started_s = self.now()
        try:
            notice = self.cloud.ask(hold_s=GCP_HOLD_S if self.cloud.holds else 0)
        except ASK_ERRORS as error:
            return self._failed(error)
        if self._failures:
            self.say(f"{self.cloud.name}'s metadata service answers again")
            self._failures = 0
        if notice is not None and notice.key != self._handled:
            self.say(notice.text)
            self._pending = notice
            self._given_up_s = notice.deadline_s or self.now() + PATIENCE_S
            return self._try_to_mark(notice)
        was_held = self.cloud.holds and self.now() - started_s >= 1
        return 0.0 if was_held else self.poll_s

    def _try_to_mark(self, notice: Notice) -> float:
        try:
            done = self.mark(notice)
        except Exception as error:
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            if self.now() < self._given_up_s:
                self.say(f"cannot mark this node as draining: {reason[0]}; trying again")
                return RETRY_PAUSE_S
            self.say(f"could not mark this node as draining before the notice's time was over: {reason[0]}")
        else:
            self.say(done)
        self._handled, self._pending = notice.key, None
        return self.poll_s

    def _failed(self, error: BaseException) -> float:
        if self._failures % SAY_EVERY == 0:
            self.say(f"{self.cloud.name}'s metadata service does not answer as it should ({error}); asking on")
        self._failures += 1
        return min(self.poll_s * 2 ** min(self._failures - 1, 10), max(LONGEST_PAUSE_S, self.poll_s))
