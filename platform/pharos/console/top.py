"""A sweep that another process runs, watched: live on a terminal, plain lines elsewhere, or one frame, or JSON."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from pharos.console.live import REFRESHES_PER_S
from pharos.console.live_view import LiveState
from pharos.console.top_view import told_ended, top_view
from pharos.errors import StorageError
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.standing import LoggedPlan, PoolWatch, Standing, standing

POLL_S = 1.0

Read = Callable[[int], Sequence[ev.Event]]
"""The events of a sweep from a sequence number on."""


class Top:
    """What is known of a watched sweep. `catch_up` reads on; whoever runs it may end, or never have begun."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._state: LiveState | None = None
        self._watch = PoolWatch()
        self._next = 0

    def catch_up(self) -> list[str]:
        """Read what is new, and return it as lines."""
        events = list(self._read(self._next))
        if not events:
            return []
        self._next = events[-1].sequence + 1
        for event in events:
            self._watch.apply(event)
        is_first = self._state is None
        if self._state is None:
            started_s = max(event.time_s for event in events if isinstance(event, ev.SweepStarted))
            plan = LoggedPlan(sweep="", num_trials=0, num_repeats=0)
            self._state = LiveState(plan=plan, entered_s=started_s, phase="starting")
        lines = self._state.take(events)
        try:
            self._state.plan = LoggedPlan.of(self._state.ledger)
        except ValueError as error:
            raise StorageError(
                f"The sweep was started by a version of Pharos whose spec this one does not read: {error}. Watch it "
                "with the version that runs it."
            ) from error
        if is_first:
            return []
        started_s = self._state.started_s or 0.0
        return [f"{words.duration(line.time_s - started_s)}  {line.text}" for line in lines]

    def standing(self, *, is_running: bool) -> Standing:
        """Raises ValueError where nothing was read yet."""
        if self._state is None:
            raise ValueError("the log is empty")
        return standing(self._state.ledger, self._watch, is_running=is_running)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been read yet."""
        return self._state is None

    @property
    def ended(self) -> ev.SweepEnded | None:
        return None if self._state is None else self._state.ledger.ended

    def frame(self, *, width: int, height: int, now_s: float, is_running: bool) -> RenderableType:
        assert self._state is not None
        return top_view(self._state, self.standing(is_running=is_running), width=width, height=height, now_s=now_s)


def show_top(
    read: Read,
    is_running: Callable[[], bool],
    *,
    once: bool = False,
    as_json: bool = False,
    options: Sequence[str] = (),
    console: Console | None = None,
    now: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Show a sweep until it ends. once: as it stands now; as_json: the same as one JSON object. options: what a
    suggested command needs to find it again.

    Raises StorageError where it has told nothing yet, or in words of another version.
    """
    console = console or Console(highlight=False)
    top = Top(read)
    top.catch_up()
    if top.is_empty:
        raise StorageError("The sweep is starting and has told nothing yet. Try again in a moment.")
    runs = is_running()
    if as_json:
        console.print_json(json.dumps(asdict(top.standing(is_running=runs))))
        return
    if top.ended is not None or not runs:
        _say_why_not(top, console, options)
        return
    if once:
        height = max(console.height, 24)
        console.print(top.frame(width=console.width, height=height, now_s=now(), is_running=True))
    elif console.is_terminal and not console.is_dumb_terminal:
        _live(top, is_running, console, now, wait)
        _say_why_not(top, console, options)
    else:
        _lines(top, is_running, console, wait)
        _say_why_not(top, console, options)


def _live(
    top: Top, is_running: Callable[[], bool], console: Console, now: Callable[[], float], wait: Callable[[float], None]
) -> None:
    def frame() -> RenderableType:
        return top.frame(width=console.width, height=console.height - 1, now_s=now(), is_running=True)

    with Live(get_renderable=frame, console=console, refresh_per_second=REFRESHES_PER_S, screen=True):
        while top.ended is None and is_running():
            wait(POLL_S)
            top.catch_up()


def _lines(top: Top, is_running: Callable[[], bool], console: Console, wait: Callable[[float], None]) -> None:
    while top.ended is None and is_running():
        wait(POLL_S)
        for line in top.catch_up():
            console.print(Text(line), soft_wrap=True)


def _say_why_not(top: Top, console: Console, options: Sequence[str]) -> None:
    """How it ended, or that it was left without an end."""
    top.catch_up()
    now = top.standing(is_running=False)
    if top.ended is not None:
        console.print(Text(told_ended(now, top.ended.reason)), soft_wrap=True)
        console.print(Text(f"look      {shlex.join(['pharos', 'compare', now.sweep, *options])}"), soft_wrap=True)
    else:
        done = sum(number for state, number in now.trials.items() if state not in ("WAITING", "RUNNING"))
        text = f"{now.sweep}  nobody runs it, and its log has no end: it was interrupted after {done} of "
        console.print(Text(text + words.plural(now.num_trials, "trial")), soft_wrap=True)
        console.print(Text(f"resume    {shlex.join(['pharos', 'resume', now.sweep, *options])}"), soft_wrap=True)
