"""Trials beside each other: ranks, differences, shares of the cost, and repeats paired by seed."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from scipy import stats
from tests.support.scripted_sweep import make_plan, make_spec, scripted_sweep

from pharos.errors import UserError
from pharos.plan.comparison import (
    ComparedSweep,
    Comparison,
    TrialFacts,
    side_by_side,
    sweep_of_ledger,
    with_trials,
)
from pharos.plan.ledger import Ledger
from pharos.plan.trial import Repeat, TrialState


def facts(number: int, score: float | None, **changes: object) -> TrialFacts:
    fields = {
        "number": number,
        "state": TrialState.COMPLETED,
        "reason": "",
        "params": {"lora.r": 4},
        "hyperparameters": {"lora.r": 4, "optim.learning_rate": 1e-3},
        "score": score,
        "best_step": 40,
        "steps": 40,
        "num_steps": 40,
        "num_tokens": 1000,
        "clocks": 40,
        "seat_s": 60.0,
    }
    return TrialFacts(**fields | changes)


def a_sweep(*trials: TrialFacts, label: str = "a", metric: str = "eval_loss", **changes: object) -> ComparedSweep:
    fields = {"source": f"results/{label}", "state": "COMPLETED", "reason": "", "winner": None, "model": None}
    return with_trials(ComparedSweep(label=label, metric=metric, **fields | changes), trials)


def ranks(comparison: Comparison) -> list[tuple[str, int | None]]:
    return [(trial.name, trial.rank) for trial in comparison.trials]


def test_trials_are_ranked_by_score_and_those_without_one_come_last() -> None:
    comparison = side_by_side([a_sweep(facts(0, 3.0), facts(1, None), facts(2, 1.0), facts(3, 3.0))])
    assert ranks(comparison) == [("a-0002", 1), ("a-0000", 2), ("a-0003", 3), ("a-0001", None)]
    assert [trial.facts.number for trial in comparison.sweeps[0].trials] == [0, 1, 2, 3]


def test_shares_of_right_answers_are_better_when_higher_and_told_apart_by_their_loss() -> None:
    trials = [facts(0, 0.0, best_loss=2.0), facts(1, 0.5), facts(2, 0.0, best_loss=1.0), facts(3, None)]
    sweep = a_sweep(*trials, metric="exact_match")
    assert [trial.facts.number for trial in side_by_side([sweep]).trials] == [1, 2, 0, 3]
    assert [score for _, score in sweep.scored()] == [0.0, -0.5, 0.0]
    repeats = [facts(Repeat(1, 1).number, 0.5), facts(Repeat(1, 2).number, 0.6)]
    repeats += [facts(Repeat(0, 1).number, 0.1), facts(Repeat(0, 2).number, 0.1)]
    better = [a_sweep(*trials, *repeats, metric=name).trials[1].probability_better for name in ("exact_match", "loss")]
    assert better == pytest.approx([0.9648, 1 - 0.9648], abs=1e-4)


def test_differences_are_to_the_baseline_of_the_own_sweep() -> None:
    one = a_sweep(facts(0, 3.0), facts(1, 2.5), facts(2, None))
    other = a_sweep(facts(0, 2.0), facts(1, 2.5), label="b")
    by_name = {trial.name: trial.difference for trial in side_by_side([one, other]).trials}
    assert by_name == {"a-0000": 0.0, "a-0001": -0.5, "a-0002": None, "b-0000": 0.0, "b-0001": 0.5}
    assert [trial.difference for trial in a_sweep(facts(1, 2.5)).trials] == [None]


def test_shares_of_the_cost_are_of_all_clocks_with_those_of_repeats() -> None:
    repeat = facts(Repeat(1, 1).number, 2.0, clocks=20)
    sweep = a_sweep(facts(0, 3.0, clocks=40), facts(1, 2.5, clocks=20), repeat)
    assert [trial.cost_share for trial in sweep.trials] == [0.5, 0.25]
    assert sweep.repeats_share == 0.25
    assert [trial.cost_share for trial in a_sweep(facts(0, 1.0, clocks=None), facts(1, 1.0)).trials] == [None, None]
    assert [trial.cost_share for trial in a_sweep(facts(0, None, clocks=0)).trials] == [None]


def test_repeats_are_no_trials_of_their_own_and_are_paired_by_seed() -> None:
    ours, theirs = [2.0, 2.2, 1.9], [2.5, 2.9, 2.45]
    repeats = [facts(Repeat(1, seed).number, score) for seed, score in enumerate(ours, start=1)]
    repeats += [facts(Repeat(0, seed).number, score) for seed, score in enumerate(theirs, start=1)]
    sweep = a_sweep(facts(0, 2.4), facts(1, 1.5), facts(2, 1.8), *reversed(repeats))
    assert [trial.facts.number for trial in sweep.trials] == [0, 1, 2]
    baseline, repeated, alone = sweep.trials
    assert (baseline.repeated, baseline.num_repeats) == (None, 3)
    assert (alone.repeated, alone.num_repeats) == (None, 0)
    assert repeated.repeated is not None
    differences = np.subtract(ours, theirs)
    assert repeated.repeated.mean == pytest.approx(differences.mean())
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert repeated.repeated.interval == pytest.approx((expected.low, expected.high))


def test_a_seed_that_one_of_them_lacks_is_left_out_of_both() -> None:
    repeats = [
        facts(Repeat(1, 1).number, 2.0),
        facts(Repeat(1, 2).number, 2.1),
        facts(Repeat(1, 3).number, 9.9, state=TrialState.DIVERGED),
        facts(Repeat(0, 2).number, 2.5),
        facts(Repeat(0, 3).number, 2.6),
    ]
    _, repeated = a_sweep(facts(0, 2.4), facts(1, 1.5), *repeats).trials
    assert repeated.repeated is not None
    assert repeated.repeated.mean == pytest.approx(2.1 - 2.5)
    assert repeated.repeated.interval is None


def test_sweeps_of_different_metrics_are_refused() -> None:
    sweeps = [a_sweep(facts(0, 1.0)), a_sweep(facts(0, 1.0), label="b", metric="eval_bleu")]
    with pytest.raises(UserError, match="different metrics: a by eval_loss; b by eval_bleu. Compare sweeps of one"):
        side_by_side(sweeps)


def test_sweeps_of_one_name_are_told_apart_by_where_they_were_read() -> None:
    one, other = a_sweep(facts(0, 1.0)), replace(a_sweep(facts(0, 2.0)), source="elsewhere/a")
    comparison = side_by_side([one, other, a_sweep(facts(0, 3.0), label="b")])
    assert [sweep.label for sweep in comparison.sweeps] == ["a (results/a)", "a (elsewhere/a)", "b"]
    assert [trial.sweep for trial in comparison.trials] == ["a (results/a)", "a (elsewhere/a)", "b"]


def test_a_ledger_is_read_with_its_winner_its_space_and_finite_scores() -> None:
    spec = make_spec()
    events = [event for batch in scripted_sweep(spec, make_plan(spec)) for event in batch]
    started = replace(events[0], spec=spec.model_dump(mode="json", by_alias=True), digests={"data": "da7a"})
    ledger = Ledger.of([started, *events[1:]])
    ledger.trials[3].score = nan
    sweep = sweep_of_ledger(ledger, {}, source="here")
    assert sweep.space == spec.search.space
    assert (sweep.label, sweep.state, sweep.model, sweep.digests) == (
        "quickstart",
        "COMPLETED",
        "docker-assistant",
        {"data": "da7a"},
    )
    best = ledger.best()
    assert best is not None
    assert sweep.winner == best.number
    assert [trial.is_winner for trial in sweep.trials] == [number == best.number for number in range(12)]
    assert sweep.trials[3].facts.score is None
    assert len(sweep.scored()) == len(ledger.ranking())
    first = sweep.trials[1].facts
    assert first.hyperparameters["optim.learning_rate"] == ledger.trials[1].plan.hyperparameters.learning_rate
    assert first.params.items() <= first.hyperparameters.items()
    assert sum(trial.cost_share or 0 for trial in sweep.trials) == pytest.approx(1)
    assert sum(trial.facts.clocks or 0 for trial in sweep.trials) == ledger.totals.live_seat_clocks


def test_a_spec_of_another_version_costs_only_what_it_does_not_tell() -> None:
    spec = make_spec()
    events = [event for batch in scripted_sweep(spec, make_plan(spec)) for event in batch]
    space = {"lora.r": {"ordered": [2, 4]}, "lora.new": {"spiral": [1, 2]}, "lora.x": {"ordered": "none"}}
    started = replace(events[0], spec={"search": {"space": space, "later": 1}, "later": {}})
    assert list(sweep_of_ledger(Ledger.of([started, *events[1:]]), {}, source="here").space) == ["lora.r"]
    assert sweep_of_ledger(Ledger.of(events), {}, source="here").space == {}
