"""Repeats under further seeds: mean and spread by contender, and what the page says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pharos.handover.report import headline, tables
from pharos.handover.report.confirmation import contenders_by_mean, repeated_scores
from pharos.plan import events as ev
from pharos.plan.confirmation import Contender

BASELINE = Contender(number=0, scores=(1.5, 1.6), mean=1.55, std=0.07)
SECOND = Contender(
    number=2,
    scores=(0.7, 0.9),
    mean=0.8,
    std=0.14,
    difference=-0.75,
    interval=(-0.9, -0.6),
    probability_better=0.987,
)
BROKEN = Contender(number=3, scores=(0.6, None))


@pytest.fixture
def confirmed(twelve, facts_of):
    """The facts of the twelve trials with a confirmation: confirmed(winner, contender, ...)."""

    def make(winner: int, *contenders: Contender):
        said = ev.WinnerConfirmed(
            winner=winner, seeds=(1, 2), contenders=tuple(contender.to_json() for contender in contenders)
        )
        return facts_of([*twelve[:-1], replace(said, time_s=twelve[-1].time_s), twelve[-1]])

    return make


def test_every_seed_is_a_dot_and_the_mean_has_its_spread(confirmed) -> None:
    facts = confirmed(2, BASELINE, SECOND, BROKEN)
    assert [one["number"] for one in contenders_by_mean(facts)] == [2, 0, 3]
    *seeds, means = repeated_scores(facts).data
    assert [(list(trace.x), list(trace.y)) for trace in seeds] == [
        ([0.6, 1.5, 0.7], ["0003", "baseline", "0002"]),
        ([1.6, 0.9], ["baseline", "0002"]),
    ]
    assert (list(means.x), list(means.error_x.array)) == ([1.55, 0.8], [0.07, 0.14])


def test_the_page_names_the_winner_by_its_mean_and_says_how_sure_it_is(confirmed) -> None:
    facts = confirmed(2, BASELINE, SECOND, BROKEN)
    assert headline.verdict(facts) == (
        "simulated-0002 wins under 2 further seeds: mean eval_loss 0.8000 against 1.5500 of the baseline."
    )
    cards = {card.label: (card.value, card.note) for card in headline.cards(facts)}
    assert cards["eval_loss, 2 further seeds"] == ("0.8000", "mean; baseline 1.5500")
    assert cards["better than the baseline"] == ("98.7%", "probable")
    assert "eval_loss in the search" in cards
    table = tables.confirmation(facts)
    assert [cell.text for cell in table.rows[0].cells] == [
        *("0002", "0.8000", "0.1400", "0.7000", "0.9000", "-0.7500", "-0.9000 to -0.6000", "98.7%")
    ]
    assert [cell.text for cell in table.rows[2].cells] == ["0003", "-", "-", "0.6000", "-", "-", "-", "-"]
    assert [row.role for row in table.rows] == ["best", "baseline", ""]


def test_a_baseline_that_wins_and_one_without_a_mean_are_said_plainly(confirmed) -> None:
    assert "no trial was better than the baseline" in headline.verdict(confirmed(0, BASELINE, BROKEN))
    without = Contender(number=0, scores=(1.5, None))
    assert headline.verdict(confirmed(2, without, SECOND)).endswith("the baseline lacks a score under one of them.")


def test_without_a_confirmation_nothing_is_claimed(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    assert repeated_scores(facts) is None
    assert tables.confirmation(facts) is None
    assert "further seed" not in headline.verdict(facts)
    assert "better than the baseline" not in [card.label for card in headline.cards(facts)]
