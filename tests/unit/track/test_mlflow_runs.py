"""MLflow runs of a sweep: one parent, one child a trial, each point once, whatever is replayed or resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from tests.unit.track import sweeps

from pharos.errors import TrackingError
from pharos.plan import events as ev
from pharos.plan.trial import Repeat
from pharos.track.event_log import EventLog
from pharos.track.mlflow_runs import MlflowRuns


def write(runs: MlflowRuns, log: EventLog, events: Sequence[ev.Event]) -> None:
    """What the desk and a follower do: append, then hand over from where the store stands."""
    log.append(events)
    cursor = runs.attach(sweeps.SWEEP, next(log.read()).time_s)
    runs.write(list(log.read(cursor)))


def again(runs: MlflowRuns) -> MlflowRuns:
    """The runs of the same sweep as another process sees them."""
    return MlflowRuns(runs.tracking_uri, runs.experiment, artifact_root=runs.artifact_root)


def points(runs: MlflowRuns, run_id: str, name: str) -> list[tuple[int, float]]:
    history = runs.client.get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in history)


def contents(runs: MlflowRuns) -> list[Any]:
    """All that the store holds: of each run its name, parameters, tags, status and points."""
    experiment = runs.client.get_experiment_by_name(runs.experiment)
    assert experiment is not None
    return sorted(
        (
            run.info.run_name,
            run.data.params,
            run.data.tags,
            run.info.status,
            run.info.end_time,
            {name: points(runs, run.info.run_id, name) for name in run.data.metrics},
        )
        for run in runs.client.search_runs([experiment.experiment_id])
    )


def unlinked(stored: list[Any]) -> list[Any]:
    """Contents without the parent's id, which differs from store to store."""
    for _, _, tags, *_ in stored:
        tags.pop("mlflow.parentRunId", None)
    return stored


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


def test_a_sweep_is_a_parent_run_with_one_child_a_trial(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0), sweeps.created(1)])
    parent = runs.client.get_run(runs.parent_id)
    children = [runs.client.get_run(runs.trial_run_id(number)) for number in (0, 1)]
    assert parent.info.run_name == "quickstart"
    assert parent.data.tags["pharos.digest.spec"] == "5bec"
    assert parent.data.tags["pharos.version.torch"] == "2.13.0"
    assert parent.data.params["data.train"] == "builtin:docker-commands"
    assert parent.data.params["optim.learning_rate"] == "0.0002"
    assert [child.info.run_name for child in children] == ["quickstart-0000", "quickstart-0001"]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert len(contents(runs)) == 3


def test_a_trial_has_all_its_hyperparameters_by_dotted_name(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0)])
    trial = runs.client.get_run(runs.trial_run_id(0)).data
    expected = {
        "lora.r": "4",
        "lora.lora_alpha": "8.0",
        "lora.alpha_over_r": "2",
        "lora.use_rslora": "false",
        "optim.learning_rate": "0.0002",
        "optim.lr_scheduler_type": "linear",
        "train.batch_size": "8",
        "train.seed": "0",
        "num_steps": "200",
    }
    assert expected.items() <= trial.params.items()
    assert trial.tags["pharos.searched"] == "lora.r, lora.alpha_over_r"
    assert "train.max_steps" not in trial.params


def test_each_step_is_a_point_at_its_own_time_and_tokens_add_up(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0), sweeps.seated(0), sweeps.reported(0, 1, 5)])
    write(runs, log, [sweeps.reported(0, 6, 10)])
    trial = runs.trial_run_id(0)
    assert points(runs, trial, "loss") == [(step, sweeps.loss_of(0, step)) for step in range(1, 11)]
    assert points(runs, trial, "num_tokens") == [(step, 50.0 * step) for step in range(1, 11)]
    assert [step for step, _ in points(runs, trial, "eval_loss")] == [5, 10]
    for name in ("grad_norm", "learning_rate", "epoch"):
        assert len(points(runs, trial, name)) == 10
    times = {metric.step: metric.timestamp for metric in runs.client.get_metric_history(trial, "loss")}
    assert times[4] == round(sweeps.step_metrics(0, 4)["time_s"] * 1000)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("COMPLETED", "FINISHED"),
        ("PRUNED", "KILLED"),
        ("STOPPED", "KILLED"),
        ("DIVERGED", "FAILED"),
        ("FAILED", "FAILED"),
    ],
)
def test_a_trial_ends_with_its_state_its_reason_and_a_status(
    runs: MlflowRuns, log: EventLog, state: str, status: str
) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0), sweeps.ended(0, state, "rank 7 of 8 at rung 40")])
    run = runs.client.get_run(runs.trial_run_id(0))
    assert (run.data.tags["pharos.state"], run.info.status) == (state, status)
    assert run.data.tags["pharos.reason"] == "rank 7 of 8 at rung 40"
    assert run.info.end_time == round((sweeps.START_S + 90) * 1000)
    assert run.data.metrics["score"] == 3.5


def test_replaying_everything_adds_nothing(runs: MlflowRuns, log: EventLog) -> None:
    sweeps.append_all(log, sweeps.rounds(num_trials=2, num_steps=12, steps_per_round=4))
    write(runs, log, [])
    before = contents(runs)
    for replayer in (runs, again(runs)):
        replayer.attach(sweeps.SWEEP, sweeps.START_S)
        replayer.write(list(log.read()))
    assert contents(runs) == before


def test_a_write_cut_off_half_way_is_completed_by_a_replay(runs: MlflowRuns, log: EventLog, tmp_path: Path) -> None:
    events = sweeps.append_all(log, sweeps.rounds(num_trials=2, num_steps=12, steps_per_round=4))
    runs.attach(sweeps.SWEEP, sweeps.START_S)
    runs.write(events[:6])
    # Events that reached the store, of which the cursor does not know.
    runs.client.set_tag(runs.parent_id, "pharos.cursor", "2")
    write(again(runs), log, [])
    whole = MlflowRuns(runs.tracking_uri, "whole", artifact_root=tmp_path / "whole")
    whole.attach(sweeps.SWEEP, sweeps.START_S)
    whole.write(events)
    assert unlinked(contents(runs)) == unlinked(contents(whole))


def test_steps_that_a_resumed_trial_repeats_are_not_published_twice(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0), sweeps.seated(0), sweeps.reported(0, 1, 8)])
    repeated = sweeps.reported(0, 5, 12)
    later = tuple(step | {"time_s": step["time_s"] + 600} for step in repeated.steps)
    write(again(runs), log, [sweeps.started(resumed=True), replace(repeated, steps=later)])
    runs.attach(sweeps.SWEEP, sweeps.START_S)
    trial = runs.trial_run_id(0)
    assert points(runs, trial, "loss") == [(step, sweeps.loss_of(0, step)) for step in range(1, 13)]
    assert points(runs, trial, "num_tokens") == [(step, 50.0 * step) for step in range(1, 13)]
    assert len(contents(runs)) == 2


def test_a_resumed_sweep_runs_again_in_its_own_run(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started(), ev.SweepEnded(state="STOPPED", reason="Ctrl-C")])
    assert runs.client.get_run(runs.parent_id).info.status == "KILLED"
    more_trials = replace(sweeps.started(resumed=True), num_trials=9)
    more_trials.spec["search"]["num_trials"] = 9
    write(runs, log, [more_trials])
    parent = runs.client.get_run(runs.parent_id)
    assert parent.info.status == "RUNNING"
    assert parent.data.tags["pharos.num_trials"] == "9"
    assert len(contents(runs)) == 1


def test_the_same_name_on_a_new_storage_is_another_sweep(runs: MlflowRuns, log: EventLog, tmp_path: Path) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0)])
    other = again(runs)
    write(other, EventLog(tmp_path / "other"), [sweeps.started(time_s=sweeps.START_S + 5), sweeps.created(0)])
    assert other.parent_id != runs.parent_id
    assert other.trial_run_id(0) != runs.trial_run_id(0)


def test_the_end_of_a_sweep_stands_in_its_parent(runs: MlflowRuns, log: EventLog, tmp_path: Path) -> None:
    end = [
        ev.TestScored(number=-1, metrics={"test_loss": 5.5}),
        ev.TestScored(number=0, metrics={"test_loss": 3.25, "test_exact_match": 0.5}),
        ev.ModelRegistered(number=0, model="docker", version="3", alias="candidate", source="runs:/x/merged"),
        ev.SweepEnded(state="COMPLETED", reason="24 trials", best=0, phases_s={"search": 61.5}),
    ]
    write(runs, log, [sweeps.started(), sweeps.created(0), *end])
    (tmp_path / "result.json").write_text("{}")
    runs.log_artifact(tmp_path / "result.json")
    parent = runs.client.get_run(runs.parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"base_test_loss": 5.5, "phase.search_s": 61.5}
    assert parent.data.tags["pharos.best_trial"] == "0"
    assert parent.data.tags["pharos.model_version"] == "3"
    trial = runs.client.get_run(runs.trial_run_id(0))
    assert trial.data.metrics == {"test_loss": 3.25, "test_exact_match": 0.5}
    assert {file.path for file in runs.client.list_artifacts(runs.parent_id)} == {"result.json", "spec.json"}


def test_the_published_spec_holds_no_password(runs: MlflowRuns, log: EventLog, tmp_path: Path) -> None:
    write(runs, log, [sweeps.started()])
    [path] = (tmp_path / "artifacts").rglob("spec.json")
    assert json.loads(path.read_text())["tracking"]["uri"] == "http://ada:***@tracking:5000"
    assert "sesame" not in str(contents(runs))


def test_a_diverged_loss_and_endless_words_are_taken(runs: MlflowRuns, log: EventLog) -> None:
    report = sweeps.reported(0, 1, 2)
    nan = replace(report, steps=(report.steps[0] | {"loss": float("nan"), "grad_norm": float("inf")},))
    write(runs, log, [sweeps.started(), sweeps.created(0), nan, sweeps.ended(0, "FAILED", "traceback " * 2000)])
    [(step, loss)] = points(runs, runs.trial_run_id(0), "loss")
    assert step == 1
    assert isnan(loss)
    assert runs.client.get_run(runs.trial_run_id(0)).data.tags["pharos.reason"].endswith("…")


def test_a_round_larger_than_one_call_may_carry_is_published_whole(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0), sweeps.reported(0, 1, 700)])
    assert len(points(runs, runs.trial_run_id(0), "num_tokens")) == 700


def test_runs_that_a_person_deleted_are_made_again(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started(), sweeps.created(0), sweeps.reported(0, 1, 4)])
    runs.client.delete_run(runs.trial_run_id(0))
    runs.client.delete_run(runs.parent_id)
    write(runs, log, [sweeps.reported(0, 5, 8)])
    assert len(points(runs, runs.trial_run_id(0), "loss")) == 8
    assert runs.client.get_run(runs.trial_run_id(0)).data.params["lora.r"] == "4"


def test_a_trial_that_the_store_does_not_have_yet_is_named(runs: MlflowRuns, log: EventLog) -> None:
    write(runs, log, [sweeps.started()])
    with pytest.raises(TrackingError, match="no run of quickstart-0007 yet"):
        runs.trial_run_id(7)


def test_repeats_are_runs_of_their_own_and_what_they_say_stands_with_the_trial(runs: MlflowRuns, log: EventLog) -> None:
    repeat = Repeat(1, 2).number
    contender = {"number": 1, "mean": 0.5, "std": None, "probability_better": 0.97}
    confirmed = ev.WinnerConfirmed(winner=1, seeds=(1, 2), contenders=(contender,), time_s=sweeps.START_S + 99)
    write(runs, log, [sweeps.started(), sweeps.created(1), sweeps.created(repeat), confirmed])
    run = runs.client.get_run(runs.trial_run_id(repeat))
    assert run.info.run_name == "quickstart-0001-seed2"
    assert run.data.tags["pharos.repeats"] == "1"
    own = runs.client.get_run(runs.trial_run_id(1))
    assert "pharos.repeats" not in own.data.tags
    assert own.data.metrics["confirm_mean"] == 0.5
    assert own.data.metrics["confirm_probability_better"] == 0.97
    assert "confirm_std" not in own.data.metrics
    assert runs.client.get_run(runs.parent_id).data.tags["pharos.confirmed_winner"] == "1"
