"""What a person sees of a comparison: columns that fit, the baseline and the winner, bars, and what to type next."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

import pytest
from rich.console import Console
from tests.unit.plan.test_comparison import a_sweep, facts

from pharos.console import show_comparison
from pharos.plan.comparison import ComparedSweep, side_by_side
from pharos.plan.comparison_rows import wanted_trials
from pharos.plan.trial import Repeat, TrialState

NEXT = ["pharos ui   curves"]


def printed(
    *sweeps: ComparedSweep,
    width: int = 160,
    top: int | None = None,
    filters: tuple[str, ...] = (),
    importance: Mapping[str, Mapping[str, float]] | None = None,
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False, _environ={})
    comparison = side_by_side(sweeps)
    show_comparison(
        comparison,
        wanted_trials(comparison, filters=filters, top=top),
        num_wanted=len(wanted_trials(comparison, filters=filters)),
        importance=importance or {},
        next_steps=NEXT,
        console=console,
    )
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def squeezed(line: str) -> str:
    return " ".join(line.split())


@pytest.fixture
def sweep() -> ComparedSweep:
    trials = [
        facts(0, 3.0, num_tokens=12_300, seat_s=65.0, clocks=40),
        facts(1, 1.25, params={"lora.r": 16, "optim.learning_rate": 2e-4}, clocks=40),
        facts(2, None, state=TrialState.DIVERGED, best_step=None, steps=7, clocks=0),
    ]
    return a_sweep(*trials, winner=1, reason="all trials are done")


def test_a_wide_table_has_every_column(sweep: ComparedSweep) -> None:
    lines = printed(sweep)
    assert lines[0] == "a  COMPLETED: all trials are done, 3 trials  results/a"
    assert squeezed(lines[2]) == "rank trial eval_loss to the baseline state best at steps tokens time cost chosen"
    assert squeezed(lines[3]) == "1 0001 1.2500 -1.7500 COMPLETED 40 40/40 1,000 1:00 50.0% r 16, lr 0.0002"
    assert squeezed(lines[4]) == "2 0000 3.0000 +0.0000 COMPLETED 40 40/40 12.3k 1:05 50.0% baseline: r 4"
    assert squeezed(lines[5]) == "- 0002 - - DIVERGED - 7/40 1,000 1:00 0.0% r 4"
    assert lines[-1] == "next:    pharos ui   curves"


def test_a_narrow_terminal_shows_fewer_columns_and_nothing_wider_than_itself(sweep: ComparedSweep) -> None:
    lines = printed(sweep, width=80)
    assert "tokens" not in lines[2]
    assert "cost" not in lines[2]
    assert "chosen" in lines[2]
    assert max(map(len, lines)) <= 80


def test_the_sweep_is_a_column_where_there_are_several(sweep: ComparedSweep) -> None:
    other = a_sweep(facts(0, 2.0), label="b")
    lines = printed(sweep, other)
    assert lines[3].split()[:3] == ["rank", "sweep", "trial"]
    assert [line.split()[:3] for line in lines[4:7]] == [["1", "a", "0001"], ["2", "b", "0000"], ["3", "a", "0000"]]
    assert "sweep" not in printed(sweep)[2].split()


def test_repeats_show_the_mean_difference_with_its_interval(sweep: ComparedSweep) -> None:
    repeats = [facts(Repeat(1, 1).number, 2.0), facts(Repeat(1, 2).number, 2.1)]
    repeats += [facts(Repeat(0, 1).number, 2.5), facts(Repeat(0, 2).number, 2.7)]
    lines = printed(a_sweep(facts(0, 3.0), facts(1, 1.25), *repeats))
    assert "67% of the cost for repeats under further seeds" in lines[0]
    assert "over seeds" in lines[2]
    assert "-0.5500 (-1.1853 to +0.0853, 2 seeds)" in lines[3]
    single = printed(a_sweep(facts(0, 3.0), facts(1, 1.25), repeats[0], repeats[2]))
    assert "-0.5000 (one seed)" in single[3]


def test_what_is_not_shown_is_counted(sweep: ComparedSweep) -> None:
    assert "1 more trial: --top 3 shows them all" in printed(sweep, top=1)
    lines = printed(sweep, filters=("state=DIVERGED",))
    assert "2 trials left out by the filters" in lines
    assert "No trial passes the filters." in printed(sweep, filters=("lora.r>100",))
    assert not any("more trial" in line or "filters" in line for line in printed(sweep))


def test_importance_is_a_bar_for_each_field(sweep: ComparedSweep) -> None:
    lines = printed(sweep, importance={"a": {"lora.r": 0.75, "optim.learning_rate": 0.25, "lora.lora_dropout": 0.0}})
    start = lines.index("what sets the best trials apart")
    assert squeezed(lines[start + 1]) == "lora.r ███████████████ 75%"
    assert squeezed(lines[start + 2]) == "optim.learning_rate █████ 25%"
    assert squeezed(lines[start + 3]) == "lora.lora_dropout 0%"
    assert not any("apart" in line for line in printed(sweep, importance={"a": {}}))


def test_sweeps_of_different_data_are_remarked_upon(sweep: ComparedSweep) -> None:
    one = replace(sweep, digests={"data": "1"})
    other = a_sweep(facts(0, 2.0), label="b", digests={"data": "2"})
    [note] = [line for line in printed(one, other) if line.startswith("note:")]
    assert note.endswith("different data, so their scores may be of different rows: a; b")
    same = replace(other, digests={"data": "1"})
    assert not any(line.startswith("note:") for line in printed(one, same))


def test_shares_of_right_answers_are_per_cent() -> None:
    lines = printed(a_sweep(facts(0, 0.25), facts(1, 0.5), metric="exact_match"))
    assert lines[2].split()[2] == "exact_match"
    assert squeezed(lines[3]).startswith("1 0001 50.0% +0.2500 COMPLETED")


def test_what_a_store_does_not_know_is_a_dash() -> None:
    lines = printed(a_sweep(facts(0, 3.0, steps=None, clocks=None, seat_s=None, best_step=None)))
    assert "cost" not in lines[2]
    assert squeezed(lines[3]) == "1 0000 3.0000 +0.0000 COMPLETED - -/40 1,000 - baseline: r 4"
