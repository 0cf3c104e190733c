"""Where a clock's time goes: parts that are told apart, and a gather that interrupts whatever it interrupts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pharos.train import stopwatch as module
from pharos.train.stopwatch import Stopwatch


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stopwatch]:
    """One second passes at every moment that is taken."""
    seconds = iter(range(1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(seconds)))
    return Stopwatch(torch.device("cpu"))


def test_parts_are_told_apart_and_a_gather_is_in_none_of_them(watch: Stopwatch) -> None:
    watch.start()
    watch.enter("forward")
    interrupted = watch.enter("gather")
    watch.enter(interrupted)
    watch.enter("backward")
    interrupted = watch.enter("gather")
    watch.enter(interrupted)
    watch.enter("optimizer")
    watch.stop()
    shares = {"batch": 1, "forward": 2, "gather": 2, "backward": 2, "optimizer": 1}
    assert watch.shares() == {part: pytest.approx(seconds / 8) for part, seconds in shares.items()}


def test_a_clock_that_is_not_timed_costs_no_look_at_the_time(watch: Stopwatch) -> None:
    watch.enter("forward")
    watch.stop()
    assert watch.shares() == {}


def test_a_round_is_told_once(watch: Stopwatch) -> None:
    watch.start()
    watch.stop()
    assert watch.shares()["batch"] == 1
    assert watch.shares() == {}
