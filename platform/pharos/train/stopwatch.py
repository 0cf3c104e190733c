"""Where the time of a clock goes: gathers of the base, forward, backward, optimizer. One clock of a round is timed.

On a GPU the moments are events on the stream that computes: nothing waits for the device, and a gather counts for as
long as computing waited for it. On a CPU they are the host's clock. The autograd thread may tell of a moment too: the
thread that called `backward` waits meanwhile, so moments keep their order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

PARTS = ("batch", "gather", "forward", "backward", "optimizer")


@dataclass(frozen=True, slots=True)
class _Moment:
    """From here on until the next one a clock did `part`. time: seconds, or an event of the device."""

    part: str
    time: Any


class Stopwatch:
    """`start`, `enter(part)` at each change, `stop`; then `shares`. Between `stop` and `start` it does nothing."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._is_running = False
        self._moments: list[_Moment] = []

    def start(self) -> None:
        """Begin anew, with the making of the batch."""
        self._is_running = True
        self._moments = [_Moment("batch", self._now())]

    def enter(self, part: str) -> str:
        """What follows is `part`. Returns the part that this ends or interrupts."""
        if not self._is_running:
            return part
        interrupted = self._moments[-1].part
        self._moments.append(_Moment(part, self._now()))
        return interrupted

    def stop(self) -> None:
        if self._is_running:
            self._moments.append(_Moment("", self._now()))
            self._is_running = False

    def shares(self) -> dict[str, float]:
        """The share of each part in the clock that was timed last; none where none was. Reading it twice gives nothing.

        On a GPU it waits for the last event, so ask after the losses were read, when that is past.
        """
        moments, self._moments = self._moments, []
        seconds = dict.fromkeys(PARTS, 0.0) if moments else {}
        for moment, following in pairwise(moments):
            seconds[moment.part] += self._between(moment.time, following.time)
        total = sum(seconds.values())
        return {part: spent / total for part, spent in seconds.items()} if total else {}

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        if not self._on_gpu:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000
