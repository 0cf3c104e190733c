"""Axes of parallel coordinates, and the bars of importance."""

from __future__ import annotations

import pytest
from tests.support.simulated_sweep import SPACE, simulated_spec, simulated_sweep

from pharos.handover.report.space import field_axis, importance_bars, parallel_coordinates, score_axis


def test_a_logarithmic_field_stands_by_its_logarithm_and_is_labelled_by_its_value() -> None:
    axis = field_axis("optim.learning_rate", {"log_uniform": [1e-5, 1e-2]}, [1e-4, 1e-3])
    assert axis.label == "lr"
    assert axis.values == pytest.approx([-4, -3])
    assert [label for _, label in axis.ticks] == ["1e-05", "0.0001", "0.001", "0.01"]


def test_a_beta_stands_by_its_distance_from_one() -> None:
    axis = field_axis("optim.adam_beta2", {"one_minus_log_uniform": [0.9, 0.9999]}, [0.99, 0.999])
    assert axis.values == pytest.approx([2, 3])
    places = sorted(axis.ticks)
    assert [label for _, label in places] == ["0.9", "0.99", "0.999", "0.9999"]
    assert [place for place, _ in places] == pytest.approx([1, 2, 3, 4])


def test_listed_values_stand_at_equal_distances_and_a_baseline_outside_the_list_has_its_place() -> None:
    axis = field_axis("lora.r", {"ordered": [4, 16, 64]}, [16, 8, 64, 64])
    assert [label for _, label in axis.ticks] == ["4", "8", "16", "64"]
    assert [round(value) for value in axis.values] == [2, 1, 3, 3]
    assert axis.values[2] != axis.values[3], "trials with one value lie beside each other"


def test_a_choice_keeps_the_order_and_the_kinds_of_its_values() -> None:
    axis = field_axis("lora.use_rslora", {"choice": [True, False]}, [False, True])
    assert [label for _, label in axis.ticks] == ["True", "False"]
    assert [round(value) for value in axis.values] == [1, 0]


def test_a_uniform_field_reaches_to_a_baseline_outside_it() -> None:
    axis = field_axis("optim.warmup_ratio", {"uniform": [0.1, 0.2]}, [0.0, 0.15])
    assert axis.ticks[0] == (0.0, "0")
    assert axis.ticks[-1] == (0.2, "0.2")


def test_scores_far_apart_have_a_logarithmic_axis() -> None:
    assert score_axis("eval_loss", [0.1, 10.0]).values == pytest.approx([-1, 1])
    assert score_axis("eval_loss", [0.5, 1.0]).values == [0.5, 1.0]
    assert score_axis("eval_loss", [0.5, 0.5]).ticks == [(0.5, "0.5")]


def test_there_is_one_axis_for_each_searched_field_and_the_best_is_drawn_over_all_others(twelve, facts_of) -> None:
    facts = facts_of(twelve)
    [lines] = parallel_coordinates(facts).data
    labels = [dimension.label for dimension in lines.dimensions]
    assert labels == ["r", "schedule", "lr", "beta2", "warmup", "eval_loss"]
    assert len(lines.dimensions) == len(SPACE) + 1
    scored = facts.ledger.ranking()
    assert len(scored) == 11, "the trial that diverged has no score"
    last = len(scored) - 1
    assert lines.dimensions[-1]["values"][last] == pytest.approx(scored[0].score)
    assert list(lines.line.color) == list(range(len(scored)))
    assert lines.line.colorscale[-1][1] == "#009e73"


def test_nothing_is_drawn_without_a_search_or_with_one_score(facts_of) -> None:
    assert parallel_coordinates(facts_of(simulated_sweep(simulated_spec(1)))) is None
    assert parallel_coordinates(facts_of(simulated_sweep(simulated_spec(4, search=None)))) is None


def test_importance_has_the_largest_share_on_top() -> None:
    [bars] = importance_bars({"lora.r": 0.25, "optim.learning_rate": 0.74, "optim.warmup_ratio": 0.01}).data
    assert list(bars.y) == ["warmup", "r", "lr"]
    assert list(bars.text) == ["1.0%", "25%", "74%"]
    assert importance_bars({}) is None
