"""Rung decisions: one mark for each, and the rungs in sum."""

from __future__ import annotations

from math import nan

from tests.support.simulated_sweep import simulated_spec, simulated_sweep

from pharos.handover.report.rungs import rung_decisions, rungs_in_sum
from pharos.plan import events as ev


def decided(number: int, score: float, *, rung: int = 20, stopped: bool = False) -> ev.RungDecided:
    return ev.RungDecided(
        number=number, rung=rung, score=score, rank=1, compared=4, stopped=stopped, reason=f"{score} is 1st of 4"
    )


def test_a_rung_in_sum_names_its_best_and_the_last_that_went_on_by_its_rank() -> None:
    decisions = [
        *(decided(0, 9.0), decided(1, 1.0), decided(2, 2.0), decided(3, 3.0, stopped=True)),
        *(decided(4, nan, stopped=True), decided(1, 0.5, rung=60)),
    ]
    first, second = rungs_in_sum(decisions)
    assert (first.clocks, first.compared, first.went_on, first.stopped) == (20, 5, 3, 2)
    assert (first.best, first.last_on) == (1.0, 2.0), "the baseline, which always goes on, is no measure"
    assert (second.clocks, second.compared, second.best) == (60, 1, 0.5)
    assert rungs_in_sum([]) == []


def test_every_decision_has_one_mark_with_its_reason_at_its_rung(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    figure = rung_decisions(facts)
    marks = [
        (round(x), y, text) for trace in figure.data for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)
    ]
    decisions = facts.ledger.decisions
    assert sorted((rung, score) for rung, score, _ in marks) == sorted(
        ([20, 60].index(decision.rung), decision.score) for decision in decisions
    )
    stopped = next(decision for decision in decisions if decision.stopped)
    assert f"simulated-{stopped.number:04d} stopped<br>{stopped.reason}" in [text for _, _, text in marks]
    assert list(figure.layout.xaxis.ticktext) == ["20 clocks", "60 clocks"]
    names = [trace.name for trace in figure.data]
    assert names[-2:] == ["baseline", "best"]


def test_a_sweep_without_rungs_has_no_such_figure(facts_of) -> None:
    assert rung_decisions(facts_of(simulated_sweep(simulated_spec(3), rungs=()))) is None
