"""The lines for programs in a job's output: few, and those that matter at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from tests.support.scripted_sweep import make_plan, make_spec, scripted_sweep

from pharos.console import StatusLines
from pharos.console.status_lines import INTERVAL_S
from pharos.plan.events import Event, SweepEnded
from pharos.plan.ledger import Ledger
from pharos.plan.sweep_status import last_status, status_of


class View:
    def __init__(self) -> None:
        self.heard: list[str | Event] = []

    def phase(self, text: str) -> None:
        self.heard.append(text)

    def update(self, events: Sequence[Event]) -> None:
        self.heard += events


def test_a_line_comes_first_last_and_now_and_then() -> None:
    spec = make_spec()
    batches = list(scripted_sweep(spec, make_plan(spec)))
    events = list(chain.from_iterable(batches))
    view, lines, now_s = View(), [], 0.0
    told = StatusLines(view, sweep=spec.name, write=lines.append, now=lambda: now_s)
    told.phase("starting Ray")
    assert lines == [], "nothing is known yet"
    for batch in batches:
        told.update(batch)
        now_s += INTERVAL_S / 4
    assert view.heard == ["starting Ray", *events]
    assert len(batches) / 4 <= len(lines) <= len(batches) / 4 + 3
    assert isinstance(events[-1], SweepEnded)
    assert last_status(lines) == status_of(Ledger.of(events), sweep=spec.name, phase="starting Ray")
    first = last_status(lines[:1])
    assert first is not None
    assert (first.num_trials, first.num_final) == (12, 0)
