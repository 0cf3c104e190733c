"""result.json as a function of the events."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.ledger import Ledger
from pharos.plan.result import result_json, saved_share
from pharos.plan.sweep_plan import plan_sweep


@pytest.fixture
def sweep(make_spec, tiny_base, rows, machine):
    """Three trials of 200 steps: the baseline to its end, one pruned at 50, one that diverged at 25."""
    spec = make_spec(search={"num_trials": 3}, pool={"workers": 1, "seats_per_worker": 3})
    plan = plan_sweep(spec, tiny_base, rows, machine)

    def reported(number: int, step: int, score: float) -> ev.TrialReported:
        return ev.TrialReported(
            number=number,
            step=step,
            clocks=step,
            steps=({"step": step, "loss": score + 0.1, "num_tokens": 80},),
            eval_metrics={"eval_loss": score},
            best_metric=score,
            best_step=step,
            best_checkpoint=f"trials/{number}/step-{step}",
            checkpoint=f"trials/{number}/step-{step}",
        )

    trials = [trial_plan(spec, number, {"optim.learning_rate": 1e-3}, 800).to_json() for number in range(3)]
    happened = [
        ev.SweepStarted(
            sweep="toy", spec={}, digests={"data": "d"}, versions={"ray": "2"}, num_trials=3, metric="eval_loss"
        ),
        ev.PoolOpened(pool="pool-0", base_key="k", num_seats=3, workers=1, attempt=0),
        *(ev.TrialCreated(number=number, trial=trial) for number, trial in enumerate(trials)),
        *(ev.TrialSeated(number=number, pool="pool-0", seat=number, resumed_step=0) for number in range(3)),
        reported(0, 200, 0.5),
        reported(1, 50, 0.4),
        reported(2, 25, float("inf")),
        ev.TrialEnded(number=0, state="COMPLETED", reason="trained to its full length", score=0.5, step=200),
        ev.TrialEnded(number=1, state="PRUNED", reason="2nd of 2", score=0.4, step=50),
        ev.TrialEnded(number=2, state="DIVERGED", reason="loss is not finite", score=None, step=25),
        ev.RoundFinished(
            pool="pool-0",
            round=1,
            clocks=200,
            live_seat_clocks=275,
            num_seats=3,
            num_tokens=240,
            num_padded_tokens=400,
            clocks_s=8.0,
            evaluation_s=1.0,
            checkpoint_s=0.5,
            exchange_s=0.5,
        ),
        ev.TestScored(number=-1, metrics={"test_loss": 2.0}),
        ev.TestScored(number=1, metrics={"test_loss": 0.45}),
        ev.TestScored(number=0, metrics={"test_loss": 0.55}),
        ev.ModelRegistered(number=1, model="toy", version="4", alias="candidate", source="runs:/r/merged"),
        ev.SweepEnded(state="COMPLETED", reason="all trials are done", best=1, phases_s={"search": 10.0}),
    ]
    return Ledger.of(replace(event, time_s=100.0 + index) for index, event in enumerate(happened)), plan


def test_the_result_holds_every_trial_and_the_choice(sweep) -> None:
    result = result_json(*sweep)
    assert (result["best"], result["baseline"], result["state"]) == (1, 0, "COMPLETED")
    assert [(trial["number"], trial["state"], trial["steps"]) for trial in result["trials"]] == [
        (0, "COMPLETED", 200),
        (1, "PRUNED", 50),
        (2, "DIVERGED", 25),
    ]
    winner = result["trials"][1]
    assert (winner["name"], winner["score"], winner["checkpoint"]) == ("toy-0001", 0.4, "trials/1/step-50")
    assert winner["params"] == {"optim.learning_rate": 1e-3}
    assert winner["hyperparameters"]["learning_rate"] == 1e-3
    assert result["test"] == {
        "untrained_base": {"test_loss": 2.0},
        "best": {"test_loss": 0.45},
        "baseline": {"test_loss": 0.55},
    }
    assert result["registered"]["version"] == "4"


def test_work_and_time_are_sums_over_the_rounds(sweep) -> None:
    result = result_json(*sweep)
    assert result["work"]["occupancy"] == 275 / 600
    assert result["work"]["steps_saved"] == 1 - 275 / 600 == saved_share(sweep[0])
    assert result["work"]["num_tokens"] == 240
    assert result["time"]["phases_s"] == {"search": 10.0}
    assert result["time"]["wall_s"] == 19.0


def test_the_result_is_strict_json_even_with_numbers_that_are_none(sweep) -> None:
    text = json.dumps(result_json(*sweep), allow_nan=False)
    assert json.loads(text)["trials"][2]["score"] is None


def test_a_sweep_that_has_only_started_has_a_result_too(sweep) -> None:
    _, plan = sweep
    result = result_json(Ledger(), plan)
    assert (result["state"], result["best"], result["trials"], result["registered"]) == ("RUNNING", None, [], None)
    assert asdict(plan.memory)["base_bytes"] > 0
