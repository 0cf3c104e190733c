"""The plan as a whole: what it decides, what it remarks, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pharos.errors import PlanError
from pharos.plan.sweep_plan import plan_sweep, single_trial_spec

QUICKSTART_SPACE = {
    "lora.r": {"ordered": [2, 4, 8, 16, 32]},
    "lora.alpha_over_r": {"ordered": [1, 2, 4]},
    "optim.learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "optim.warmup_ratio": {"uniform": [0.0, 0.2]},
}


@pytest.fixture
def plan(make_spec, tiny_base, rows, machine):
    def of(*, without_search: bool = False, base=tiny_base, data=rows, **changes):
        return plan_sweep(make_spec(**changes), base, data, machine, without_search=without_search)

    return of


def test_a_sweep_like_the_quickstart(plan) -> None:
    found = plan(search={"space": QUICKSTART_SPACE}, lora={"r": 8, "lora_alpha": 16}, optim={"warmup_ratio": 0.03})
    assert (found.num_trials, found.num_seats, found.seats_per_worker, found.num_workers) == (24, 8, 4, 2)
    assert (found.baseline.num_clocks, found.report_every, found.rungs) == (200, 25, (50, 100))
    assert found.baseline.params == {
        "lora.r": 8,
        "lora.alpha_over_r": 2.0,
        "optim.learning_rate": 2e-4,
        "optim.warmup_ratio": 0.03,
    }
    assert (found.r_max, found.reduction_factor, found.expected_trial_clocks) == (32, 2, 2400)
    assert (found.placement, found.sharding, found.dtype) == ("local", "replicate", "float32")
    assert found.warnings == found.infos == ()


def test_train_is_one_trial_split_over_all_workers(plan) -> None:
    found = plan(without_search=True)
    assert (found.num_trials, found.num_seats, found.seats_per_worker, found.placement) == (1, 1, 1, "data_parallel")
    assert (found.rungs, found.baseline.params, found.expected_trial_clocks) == ((), {}, found.baseline.num_clocks)
    assert plan(search=None) == found


def test_train_keeps_a_placement_that_was_written(make_spec, plan) -> None:
    assert plan(without_search=True, pool={"placement": "local", "workers": 1}).placement == "local"
    once = single_trial_spec(make_spec())
    assert single_trial_spec(once) == once


def test_seats_that_no_trial_can_fill_are_left_out(plan) -> None:
    found = plan(search={"num_trials": 5})
    assert (found.seats_per_worker, found.num_seats) == (3, 6)
    assert "pool.seats_per_worker=4 is more than 5 trials can fill: 3 is used." in found.infos
    assert found.memory.seats_bytes < plan().memory.seats_bytes


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"optim": {"learning_rate": 0.1}}, "optim.learning_rate=0.1 is far from"),
        ({"train": {"batch_size": 1600, "max_steps": 8}}, "train.batch_size=1600 is more than the 800 training rows"),
        ({"lora": {"r": 256}}, "narrowest target module has 128"),
        ({"optim": {"warmup_ratio": 0.7}}, "first rung lies at 150 of 200 clocks"),
        ({"train": {"report_every": 200}}, "finds no report at which it could decide"),
        ({"search": {"num_trials": 1}}, "a local trial lives on one worker and there is 1"),
        ({"pool": {"workers": 16, "placement": "data_parallel"}}, "less than pool.workers=16"),
    ],
)
def test_what_is_probably_a_mistake_is_a_warning(plan, changes, warning) -> None:
    found = plan(**changes)
    assert len(found.warnings) == 1
    assert warning in found.warnings[0]


def test_few_eval_rows_are_a_warning_and_long_rows_are_told(plan, rows) -> None:
    found = plan(data=replace(rows, num_eval_rows=5))
    assert "only 5 eval rows" in found.warnings[0]


def test_what_was_found_in_the_rows_is_a_warning_of_the_plan(plan, rows) -> None:
    found = plan(data=replace(rows, warnings=("train.jsonl: 'note' of 3 rows is not used",)))
    assert found.warnings == ("train.jsonl: 'note' of 3 rows is not used",)


def test_truncated_rows_are_told(make_spec, tiny_base, rows, machine) -> None:
    spec = make_spec(data={"long_rows": "truncate"})
    found = plan_sweep(spec, tiny_base, replace(rows, num_long_rows=12), machine)
    assert "12 rows longer than data.max_length=256 are truncated, none of them inside a turn." in found.infos


def test_texts_have_no_questions_to_answer(make_spec, tiny_base, rows, machine) -> None:
    spec, texts = make_spec(test={"generate": True}), replace(rows, format="messages, text")
    with pytest.raises(PlanError, match="test.generate=true asks for answers .* Remove test.generate."):
        plan_sweep(spec, tiny_base, texts, machine)
    plan_sweep(make_spec(), tiny_base, texts, machine)
    plan_sweep(spec, tiny_base, rows, machine)


def test_what_cannot_be_trained_is_refused(make_spec, tiny_base, rows, machine) -> None:
    for base, data, message in (
        (tiny_base, replace(rows, num_train_rows=0), "no row to train on"),
        (tiny_base, replace(rows, num_eval_rows=0), "Give data.eval"),
        (replace(tiny_base, targets=()), rows, "lora.target_modules=all-linear matches no Linear module"),
        (replace(tiny_base, max_position_embeddings=64), rows, "Set data.max_length to 64 or less"),
    ):
        with pytest.raises(PlanError, match=message):
            plan_sweep(make_spec(), base, data, machine)
