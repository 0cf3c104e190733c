"""A client of MLflow that dies at a chosen call, just before it or just after it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

NOT_CALLS = ("tracking_uri",)


class Crash(BaseException):
    """The end of a process, played in one that goes on. No `except Exception` catches it."""


def crash() -> None:
    raise Crash


def sigkill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class FailingClient:
    """Passes every call on until the one numbered `at`, from 0: there it dies, and in all that follow.

    after: the call has reached the store, but its answer is never seen. only: count no calls but those of this name.
    """

    def __init__(self, client: Any, *, at: int, after: bool, only: str = "", die: Callable[[], None] = crash) -> None:
        self.client, self.at, self.after, self.only, self.die = client, at, after, only, die
        self.num_calls, self.is_dead = 0, False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if not callable(found) or name in NOT_CALLS:
            return found

        def call(*arguments: Any, **keywords: Any) -> Any:
            is_last = self.num_calls == self.at and self.only in ("", name)
            self.num_calls += self.only in ("", name)
            if self.is_dead or (is_last and not self.after):
                self.is_dead = True
                self.die()
            try:
                return found(*arguments, **keywords)
            finally:
                if is_last:
                    self.is_dead = True
                    self.die()

        return call
