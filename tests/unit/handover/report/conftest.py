"""Sweeps to report on, made without training: one of twelve trials, and what a report needs of any."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from tests.support.simulated_sweep import Happening, simulated_spec, simulated_sweep

from pharos.handover.report.facts import SweepFacts, sweep_facts
from pharos.plan.events import Event
from pharos.plan.ledger import Ledger

FactsOf = Callable[[Sequence[Event]], SweepFacts]


@pytest.fixture
def facts_of() -> FactsOf:
    return lambda events: sweep_facts(events, Ledger.of(events))


@pytest.fixture
def twelve() -> list[Event]:
    """Trial 5 diverges at once; eight seats."""
    return simulated_sweep(simulated_spec(12), happening=Happening(diverging=frozenset({5})))
