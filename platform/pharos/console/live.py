"""A sweep while it runs: a live view on a terminal, plain lines anywhere else.

Its time comes from events; `now` is asked for the header's elapsed time alone.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from pharos.console.live_view import LiveState, live_view
from pharos.console.narration import Line
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.sweep_plan import SweepPlan

REFRESHES_PER_S = 4


class LiveSweep:
    """`with LiveSweep(console, plan) as view:` then `view.phase(text)` and `view.update(events)`, from any thread."""

    def __init__(self, console: Console, plan: SweepPlan, *, now: Callable[[], float] = time.time) -> None:
        self._console, self._now = console, now
        self._state = LiveState(plan=plan, entered_s=now())
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> LiveSweep:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def phase(self, text: str) -> None:
        """Say what is being done before, between or after the rounds. Plain: a count that ticks is printed once."""
        with self._lock:
            ticks = _without_digits(text) == _without_digits(self._state.phase)
            self._state.phase = text
        if self._live is None and not ticks:
            self._print(text)

    def update(self, events: Sequence[ev.Event]) -> None:
        """Take the next events of the sweep in, in order and each once."""
        with self._lock:
            lines = self._state.take(events)
        if self._live is None:
            for line in lines:
                self._print(self._told(line))

    def _render(self) -> RenderableType:
        with self._lock:
            return live_view(self._state, width=self._console.width, height=self._console.height - 1, now_s=self._now())

    def _told(self, line: Line) -> str:
        started_s = self._state.started_s
        return f"{words.duration(line.time_s - (line.time_s if started_s is None else started_s))}  {line.text}"

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def _without_digits(text: str) -> str:
    return re.sub(r"\d+", "", text)
