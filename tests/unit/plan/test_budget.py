"""Lengths of trials, reports and rungs."""

from __future__ import annotations

import pytest

from pharos.errors import PlanError
from pharos.plan.budget import (
    any_dropout,
    expected_trial_clocks,
    largest_rank,
    largest_warmup_ratio,
    report_every,
    rungs,
    trial_plan,
)
from pharos.plan.hyperparameters import baseline_params

RATE = {"optim.learning_rate": {"log_uniform": [1e-5, 1e-2]}}


@pytest.mark.parametrize(
    ("train", "pool", "num_rows", "num_steps", "clocks_per_step"),
    [
        ({"num_train_epochs": 2, "batch_size": 8, "micro_batch_size": 8}, {}, 800, 200, 1),
        ({"num_train_epochs": 2, "batch_size": 32, "micro_batch_size": 8}, {}, 800, 50, 4),
        ({"num_train_epochs": 1, "batch_size": 8, "micro_batch_size": 8}, {}, 801, 101, 1),
        ({"num_train_epochs": 0.5, "batch_size": 8, "micro_batch_size": 4}, {}, 800, 50, 2),
        ({"max_steps": 7, "batch_size": 8, "micro_batch_size": 8}, {}, 800, 7, 1),
        ({"num_train_epochs": 0.001, "batch_size": 8, "micro_batch_size": 8}, {}, 10, 1, 1),
        ({"batch_size": 32, "micro_batch_size": 8}, {"placement": "data_parallel", "workers": 2}, 32, 3, 2),
        ({"batch_size": 8, "micro_batch_size": 8}, {"placement": "data_parallel", "workers": 2}, 8, 3, 1),
    ],
)
def test_steps_cover_the_epochs_and_clocks_cover_the_batch(
    make_spec, train, pool, num_rows, num_steps, clocks_per_step
) -> None:
    spec = make_spec(train={"num_train_epochs": 3} | train, pool=pool)
    trial = trial_plan(spec, 3, {}, num_rows)
    assert (trial.number, trial.num_steps, trial.clocks_per_step) == (3, num_steps, clocks_per_step)
    assert trial.num_clocks == num_steps * clocks_per_step


def test_a_searched_batch_size_changes_the_trial_and_not_the_baseline(make_spec) -> None:
    spec = make_spec(search={"space": {"train.batch_size": {"ordered": [8, 16, 32]}}})
    assert trial_plan(spec, 0, baseline_params(spec), 800).num_steps == 200
    chosen = trial_plan(spec, 1, {"train.batch_size": 32}, 800)
    assert (chosen.num_steps, chosen.clocks_per_step, chosen.num_clocks) == (50, 4, 200)


@pytest.mark.parametrize(("max_steps", "batch_size", "expected"), [(200, 8, 25), (3, 8, 1), (100, 32, 48), (12, 8, 2)])
def test_reports_come_eight_times_a_trial_and_never_within_a_step(make_spec, max_steps, batch_size, expected) -> None:
    spec = make_spec(train={"max_steps": max_steps, "batch_size": batch_size})
    baseline = trial_plan(spec, 0, {}, 800)
    assert report_every(spec, baseline) == expected
    assert expected % baseline.clocks_per_step == 0


def test_the_spec_decides_how_often_trials_report(make_spec) -> None:
    spec = make_spec(train={"report_every": 7})
    assert report_every(spec, trial_plan(spec, 0, {}, 800)) == 7


@pytest.mark.parametrize(
    ("max_steps", "every", "warmup", "halving", "expected"),
    [
        (200, 25, 0.0, {}, (25, 50, 100)),
        (200, 25, 0.2, {}, (50, 100)),
        (200, 25, 0.25, {}, (100,)),  # 50 clocks of warmup: the rung at 50 is not strictly beyond
        (200, 25, 0.6, {}, (125,)),  # no power of two lies beyond: the first report that does
        (200, 25, 0.95, {}, ()),
        (200, 10, 0.0, {}, (10, 20, 50, 100)),  # 12.5 and 6.25 both move to the report at 10, 25 to 20
        (203, 25, 0.0, {}, (25, 50, 100)),
        (270, 10, 0.0, {"reduction_factor": 3}, (10, 30, 90)),
        (200, 25, 0.0, {"first_rung": 0.3}, (75, 150)),
        (200, 25, 0.2, {"first_rung": 0.25}, (50, 100)),
        (200, 25, 0.0, {"enabled": False}, ()),
        (200, 200, 0.0, {}, ()),
        (8, 1, 0.0, {}, (1, 2, 4)),
    ],
)
def test_rungs_are_reports_beyond_the_warmup(make_spec, max_steps, every, warmup, halving, expected) -> None:
    spec = make_spec(
        train={"max_steps": max_steps, "report_every": every},
        search={"space": RATE | {"optim.warmup_ratio": {"uniform": [0.0, warmup]}}, "halving": halving},
    )
    found = rungs(spec, trial_plan(spec, 0, {}, 800), report_every=every)
    assert found == expected
    assert all(rung % every == 0 and warmup * max_steps < rung < max_steps for rung in found)


def test_the_baselines_own_warmup_counts_too(make_spec) -> None:
    spec = make_spec(optim={"warmup_ratio": 0.3}, train={"max_steps": 200})
    assert largest_warmup_ratio(spec) == 0.3
    assert rungs(spec, trial_plan(spec, 0, {}, 800), report_every=25) == (100,)


def test_rungs_count_clocks_where_a_step_takes_several(make_spec) -> None:
    spec = make_spec(optim={"warmup_ratio": 0.1}, train={"max_steps": 50, "batch_size": 32})
    assert rungs(spec, trial_plan(spec, 0, {}, 800), report_every=20) == (40, 100)


def test_a_first_rung_within_the_warmup_is_refused_with_the_remedy(make_spec) -> None:
    spec = make_spec(
        train={"max_steps": 200},
        search={"space": {"optim.warmup_ratio": {"uniform": [0.0, 0.2]}}, "halving": {"first_rung": 0.1}},
    )
    with pytest.raises(PlanError, match=r"first_rung=0.1 lies within .* 40 of 200 clocks.* Set it above 0.2"):
        rungs(spec, trial_plan(spec, 0, {}, 800), report_every=10)


def test_no_search_or_a_single_trial_has_no_rungs(make_spec) -> None:
    for spec in (make_spec(search=None), make_spec(search={"num_trials": 1})):
        assert rungs(spec, trial_plan(spec, 0, {}, 800), report_every=25) == ()


def test_expected_clocks_fall_with_every_rung() -> None:
    def expected(rungs: tuple[int, ...]) -> int:
        return expected_trial_clocks(num_trials=24, num_clocks=200, rungs=rungs, reduction_factor=2)

    assert expected(()) == 24 * 200
    assert expected((100,)) == 24 * 100 + 12 * 100
    assert expected((50, 100)) == 24 * 50 + 12 * 50 + 6 * 100


def test_the_largest_values_of_the_space_include_the_specs_own(make_spec) -> None:
    space = {"lora.r": {"ordered": [2, 4, 32]}, "lora.lora_dropout": {"uniform": [0.0, 0.1]}}
    assert largest_rank(make_spec(search={"space": space})) == 32
    assert largest_rank(make_spec(search={"space": space}, lora={"r": 64})) == 64
    assert any_dropout(make_spec(search={"space": space}))
    assert not any_dropout(make_spec())
