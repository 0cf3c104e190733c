"""What the page says in words and tables."""

from __future__ import annotations

from pathlib import Path

from tests.support.simulated_sweep import Happening, simulated_spec, simulated_sweep

from pharos.handover.report import headline, onward, tables
from pharos.plan import events as ev


def cards(facts) -> dict[str, tuple[str, str]]:
    return {card.label: (card.value, card.note) for card in headline.cards(facts)}


def test_the_headline_counts_trials_steps_and_time(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    told = cards(facts)
    trials = facts.ledger.trials.values()
    steps = sum(trial.step for trial in trials)
    assert told["trials"][0] == "12"
    assert told["trials"][1].endswith("1 diverged")
    assert told["steps saved"] == (f"{1 - steps / 1920:.0%}", f"{steps:,} of 1,920 were run")
    assert told["registered"] == ("version 3", "assistant@candidate")
    assert told["test_loss"] == ("0.9000", "baseline 0.9000")


def test_before_the_end_nothing_is_called_saved(facts_of) -> None:
    told = cards(facts_of(simulated_sweep(simulated_spec(12), happening=Happening(stop_at=4))))
    assert "steps saved" not in told
    assert told["steps run"][1] == "of 1,920 at full length"
    assert "registered" not in told


def test_the_time_leaves_out_what_lies_between_sessions(facts_of) -> None:
    happening = Happening(resumed_at=frozenset({3}))
    facts = facts_of(simulated_sweep(simulated_spec(12), happening=happening))
    assert facts.ledger.last_time_s - facts.ledger.first_time_s > 36_000
    minutes, _, _ = cards(facts)["time"][0].partition(":")
    assert int(minutes) < 2


def test_the_leaderboard_has_every_trial_once_by_rank_and_those_without_a_score_last(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    table = tables.leaderboard(facts)
    assert {len(row.cells) for row in table.rows} == {len(table.headings)} == {len(table.numeric)}
    assert [row.cells[0].text for row in table.rows] == [*map(str, range(1, 12)), "-"]
    assert [row.cells[1].sort for row in table.rows[:-1]] == [trial.number for trial in facts.ledger.ranking()]
    last = [cell.text for cell in table.rows[-1].cells]
    assert (last[1], last[2], last[4], last[-1]) == ("0005", "-", "DIVERGED", "the loss is not finite")
    assert table.rows[0].role == "best"
    assert [row.cells[1].text for row in table.rows if row.role == "baseline"] == ["0000 baseline"]
    first = dict(zip(table.headings, table.rows[0].cells, strict=True))
    assert first["to baseline"].text.endswith("% lower")
    assert first["steps"].text == "160/160"


def test_a_single_fine_tune_is_compared_with_no_baseline(facts_of) -> None:
    facts = facts_of(simulated_sweep(simulated_spec(1, search=None), rungs=()))
    table = tables.leaderboard(facts)
    assert "to baseline" not in table.headings
    assert {len(row.cells) for row in table.rows} == {len(table.headings)}
    assert tables.chosen_values(facts) is None
    assert tables.test_rows(facts).headings == ["on test rows", "trial", "untrained base"]
    assert "steps saved" not in cards(facts)


def test_a_baseline_that_is_best_is_said_out_loud(facts_of) -> None:
    facts = facts_of(simulated_sweep(simulated_spec(2, optim={"learning_rate": 3e-3})))
    assert facts.best.number == 0
    assert headline.verdict(facts) == "No trial was better than the baseline: its own values are the winner."
    assert headline.doubt(facts) == ""


def test_commands_name_the_tracking_server_where_there_is_one(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    told = [command for command, _ in onward.commands(facts, Path("/my results/simulated"))]
    assert told[0] == "pharos compare simulated --storage '/my results'"
    assert told[1] == "pharos chat assistant@candidate --storage '/my results'"
    started = twelve[0]
    assert isinstance(started, ev.SweepStarted)
    started.spec["tracking"]["uri"] = "http://tracking:5000"
    told = [command for command, _ in onward.commands(facts, Path("/results/simulated"))]
    assert told[2] == "pharos promote assistant@candidate --storage /results --tracking-uri http://tracking:5000"


def test_a_sweep_that_was_stopped_names_the_command_that_writes_its_page_again(facts_of) -> None:
    facts = facts_of(simulated_sweep(simulated_spec(12), happening=Happening(stop_at=4)))
    told = [command for command, _ in onward.commands(facts, Path("/results/simulated"))]
    assert told == ["pharos compare simulated --storage /results", "pharos report simulated --storage /results"]
    assert [what for what, _ in onward.places(facts, Path("/results/simulated"))] == ["events", "winner's adapter"]
