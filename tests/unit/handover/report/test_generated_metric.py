"""A sweep that is steered by generated answers: higher is better, shares are written in per cent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.handover.report.test_rungs import decided

from pharos.handover.report import headline, tables
from pharos.handover.report.confirmation import contenders_by_mean
from pharos.handover.report.page import figures
from pharos.handover.report.rungs import rungs_in_sum
from pharos.plan import events as ev
from pharos.plan.confirmation import Contender


def share(loss: float) -> float:
    """What the simulated loss stands for: the lower, the more answers are right."""
    return round(max(0.0, 1 - loss / 3), 3)


@pytest.fixture
def answering(twelve) -> list[ev.Event]:
    """The twelve trials with exact_match instead of eval_loss, which is evaluated beside it."""

    def turned(event: ev.Event) -> ev.Event:
        match event:
            case ev.SweepStarted():
                return replace(event, metric="exact_match")
            case ev.TrialReported() if event.best_metric is not None:
                loss = event.eval_metrics["eval_loss"]
                asked = {"exact_match": share(loss)} if event.step in (20, 60, 160) else {}
                return replace(event, eval_metrics={"eval_loss": loss, **asked}, best_metric=share(event.best_metric))
            case ev.TrialEnded() if event.score is not None:
                return replace(event, score=share(event.score))
            case ev.RungDecided():
                return replace(event, score=share(event.score))
        return event

    return [turned(event) for event in twelve]


def test_the_highest_share_wins_and_is_written_in_per_cent(answering, twelve, facts_of) -> None:
    facts = facts_of(answering)
    assert facts.best.number == facts_of(twelve).best.number
    assert facts.best.score > facts.baseline.score
    lead = (facts.best.score - facts.baseline.score) * 100
    assert headline.verdict(facts) == (
        f"simulated-{facts.best.number:04d} wins: exact_match {facts.best.score:.1%} against "
        f"{facts.baseline.score:.1%} of the baseline ({lead:.1f} points higher)."
    )
    first = tables.leaderboard(facts).rows[0]
    assert [cell.text for cell in first.cells[2:4]] == [f"{facts.best.score:.1%}", f"{lead:.1f} points higher"]


def test_a_score_that_is_no_share_is_written_as_it_is(answering, facts_of) -> None:
    facts = replace(facts_of(answering), metric="bleu_4")
    assert facts.change(0.5, 0.25) == "0.2500 higher"
    assert facts.change(0.2, 0.0) == "0.2000 higher", "nothing was right before"
    assert facts.change(None, 0.25) == facts.change(0.5, None) == ""


def test_the_loss_has_curves_of_its_own(answering, twelve, facts_of) -> None:
    shown = {figure.name: figure.drawn for figure in figures(facts_of(answering), {})}
    assert len(shown["curves"].data[-1].x) == 3, "answers are asked for at rungs and at the end"
    assert len(shown["losses"].data[-1].x) == 8
    assert shown["losses"].layout.yaxis.title.text == "eval_loss"
    assert [trace.name for trace in shown["against"].data][2:] == ["baseline: eval_loss", "best: eval_loss"]
    assert "losses" not in [figure.name for figure in figures(facts_of(twelve), {})]


def test_the_best_of_a_rung_and_of_a_confirmation_is_the_highest(answering, facts_of) -> None:
    decisions = [decided(1, 0.5), decided(2, 0.75), decided(3, 0.25), decided(4, 0.0, stopped=True)]
    [rung] = rungs_in_sum(decisions, "exact_match")
    assert (rung.best, rung.last_on) == (0.75, 0.25)
    contenders = [Contender(number=n, scores=(s,), mean=s) for n, s in ((0, 0.25), (1, 0.5), (2, 0.75))]
    told = tuple(contender.to_json() for contender in [*contenders, Contender(number=3, scores=(None,))])
    said = ev.WinnerConfirmed(winner=2, seeds=(1,), contenders=told)
    facts = facts_of([*answering[:-1], replace(said, time_s=answering[-1].time_s), answering[-1]])
    assert [one["number"] for one in contenders_by_mean(facts)] == [2, 1, 0, 3]
    assert [cell.text for cell in tables.confirmation(facts).rows[0].cells[:4]] == ["0002", "75.0%", "-", "75.0%"]


def test_its_page_is_whole(answering, tmp_path: Path) -> None:
    from tests.unit.handover.report.test_page import page_of

    page = page_of(answering, tmp_path)
    assert page.drawn[:2] == ["curves", "losses"]
