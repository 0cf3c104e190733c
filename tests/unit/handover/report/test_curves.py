"""Learning curves as plotly gets them: who is in which group, and at which place."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from tests.support.simulated_sweep import simulated_spec, simulated_sweep

from pharos.handover.report.curves import against_baseline, learning_curves, thinned, training_losses
from pharos.plan import events as ev


def test_curves_are_grouped_by_how_trials_ended_and_the_winner_and_the_baseline_stand_apart(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    figure = learning_curves(facts, facts.metric, facts.evaluations)
    by_name = {trace.name: trace for trace in figure.data}
    states = [str(trial.state) for trial in facts.others()]
    pruned = [trial.number for trial in facts.others() if trial.state == "PRUNED"]
    assert list(by_name) == [
        f"completed ({states.count('COMPLETED')})",
        f"stopped at a rung ({len(pruned)})",
        "baseline",
        "best",
    ]
    assert set(by_name[f"stopped at a rung ({len(pruned)})"].customdata) == set(pruned)
    best = by_name["best"]
    assert list(zip(best.x, best.y, strict=True)) == list(facts.evaluations[facts.best.number])
    assert set(best.customdata) == {facts.best.number}


def test_the_evaluation_that_scores_a_trial_is_the_large_dot(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    facts.best.best_step = 80
    best = learning_curves(facts, facts.metric, facts.evaluations).data[-1]
    assert [step for step, size in zip(best.x, best.marker.size, strict=True) if size > 6] == [80]


def test_curves_of_one_group_are_one_line_with_gaps(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    [trace] = [
        trace
        for trace in learning_curves(facts, facts.metric, facts.evaluations).data
        if trace.name.startswith("stopped")
    ]
    ends = np.flatnonzero(np.isnan(trace.y))
    assert len(ends) == len(set(trace.customdata))
    assert np.isnan(trace.x[ends]).all()
    first = trace.customdata[0]
    assert trace.y[: ends[0]] == pytest.approx([score for _, score in facts.evaluations[first]])


def test_many_points_are_thinned_and_drawn_by_the_gpu_but_the_ends_of_each_curve_stay(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    long = {number: [(step, 1.0 / step) for step in range(1, 9001)] for number in facts.evaluations}
    figure = learning_curves(facts, facts.metric, long)
    others = [trace for trace in figure.data if trace.name.startswith(("completed", "stopped"))]
    assert {trace.type for trace in others} == {"scattergl"}
    for trace in others:
        assert len(trace.x) <= 40_000 + len(set(trace.customdata))
        assert {1.0, 9000.0} <= set(trace.x[~np.isnan(trace.x)])


def test_trials_of_different_batch_sizes_are_laid_over_their_micro_batches(twelve, facts_of) -> None:
    def in_two_clocks(event: ev.Event) -> ev.Event:
        if isinstance(event, ev.TrialCreated) and event.number == 0:
            return replace(event, trial=event.trial | {"clocks_per_step": 2})
        return event

    facts = facts_of([in_two_clocks(event) for event in twelve])
    figure = learning_curves(facts, facts.metric, facts.evaluations)
    [baseline] = [trace for trace in figure.data if trace.name == "baseline"]
    assert list(baseline.x) == [2 * step for step, _ in facts.evaluations[0]]
    assert figure.layout.xaxis.title.text == "micro-batch of the trial"
    plain = facts_of(twelve)
    figure = learning_curves(plain, plain.metric, plain.evaluations)
    assert figure.layout.xaxis.title.text == "optimizer step"


def test_scores_far_apart_are_drawn_on_a_logarithmic_axis(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    assert learning_curves(facts, facts.metric, facts.evaluations).layout.yaxis.type == "linear"
    far = {number: [(20, 0.1 if number else 90.0)] for number in facts.evaluations}
    assert learning_curves(facts, facts.metric, far).layout.yaxis.type == "log"


def test_what_is_not_finite_has_no_point(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    assert facts.ledger.trials[5].evaluations[20] == {"eval_loss": inf}
    assert list(facts.evaluations[5]) == []


def test_the_winner_is_compared_with_the_baseline_in_training_loss_and_metric(twelve, facts_of) -> None:
    figure = against_baseline(facts_of(twelve))
    assert [trace.name for trace in figure.data] == [
        "baseline: training loss",
        "best: training loss",
        "baseline: eval_loss",
        "best: eval_loss",
    ]
    assert len(figure.data[1].x) == 160


def test_a_winner_that_is_the_baseline_is_compared_with_nobody(facts_of) -> None:
    assert against_baseline(facts_of(simulated_sweep(simulated_spec(1)))) is None


def test_a_step_that_was_run_again_counts_once_as_run_last() -> None:
    def reported(*losses: tuple[int, float]) -> ev.TrialReported:
        return ev.TrialReported(
            number=3,
            step=losses[-1][0],
            clocks=losses[-1][0],
            steps=tuple({"step": step, "loss": loss} for step, loss in losses),
            eval_metrics={},
            best_metric=None,
            best_step=None,
            best_checkpoint=None,
            checkpoint=None,
        )

    events = [reported((1, 4.0), (2, 3.0), (3, inf)), reported((2, 2.5), (4, 2.0))]
    assert training_losses(events, {3}) == {3: [(1, 4.0), (2, 2.5), (4, 2.0)]}


def test_thinning_takes_means_of_neighbours_and_leaves_short_curves_alone() -> None:
    steps, values = thinned([(step, float(step)) for step in range(1, 9)], most=4)
    assert (list(steps), list(values)) == ([2, 4, 6, 8], [1.5, 3.5, 5.5, 7.5])
    steps, values = thinned([(1, 0.5), (2, 0.4)], most=4)
    assert (list(steps), list(values)) == ([1, 2], [0.5, 0.4])
    assert [len(part) for part in thinned([])] == [0, 0]
