"""A sweep read to be compared: from its log, from MLflow alone, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.many_trials import many_trials, many_trials_spec
from tests.unit.track import sweeps

from pharos.errors import StorageError, TrackingError
from pharos.plan import events as ev
from pharos.plan.comparison import ComparedSweep, ComparedTrial
from pharos.plan.trial import Repeat, TrialState
from pharos.track.comparisons import sweep_of_log, sweep_of_mlflow
from pharos.track.event_log import EventLog
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.sweeps import log_of

HAPPENED: list[ev.Event] = [
    sweeps.started(),
    *(sweeps.created(number) for number in (0, 1, 2, 3)),
    *(sweeps.seated(number) for number in (0, 1, 2)),
    sweeps.reported(0, 1, 10),
    sweeps.reported(1, 1, 10),
    ev.PoolLost(pool="pool-0", reason="died", trials=(0, 1, 2), time_s=sweeps.START_S + 14),
    replace(sweeps.seated(0), time_s=sweeps.START_S + 20),
    replace(sweeps.seated(1), time_s=sweeps.START_S + 20),
    replace(sweeps.reported(0, 6, 20), time_s=sweeps.START_S + 40),
    replace(sweeps.reported(1, 6, 15), time_s=sweeps.START_S + 40),
    replace(sweeps.ended(0), score=sweeps.loss_of(0, 20) + 0.1),
    replace(sweeps.ended(2, "FAILED", "no memory"), score=None, time_s=sweeps.START_S + 60),
]
REPEATS: list[ev.Event] = [
    replace(sweeps.created(Repeat(0, 1).number)),
    replace(sweeps.seated(Repeat(0, 1).number)),
    replace(sweeps.reported(Repeat(0, 1).number, 1, 20), best_metric=4.5),
    replace(sweeps.ended(Repeat(0, 1).number), score=4.5),
]


def comparable(sweep: ComparedSweep) -> ComparedSweep:
    """Without where it was read, and with times to the millisecond."""
    return replace(sweep, source="", trials=tuple(_rounded(trial) for trial in sweep.trials))


def _rounded(trial: ComparedTrial) -> ComparedTrial:
    assert trial.facts.seat_s is not None
    return replace(trial, facts=replace(trial.facts, seat_s=round(trial.facts.seat_s, 3)))


def in_mlflow(runs: MlflowRuns, events: list[ev.Event], first_time_s: float = sweeps.START_S) -> None:
    runs.attach(sweeps.SWEEP, first_time_s)
    runs.write([replace(event, sequence=index) for index, event in enumerate(events)])


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return log_of(tmp_path / "results" / sweeps.SWEEP)


def test_log_and_mlflow_tell_the_same_of_a_sweep_half_done(log: EventLog, runs: MlflowRuns) -> None:
    log.append([*HAPPENED, *REPEATS])
    in_mlflow(runs, [*HAPPENED, *REPEATS])
    ours = sweep_of_log(log.directory.parent)
    theirs = sweep_of_mlflow(runs.tracking_uri, sweeps.SWEEP)
    # A winner is told to MLflow when the sweep ends; until then the log alone knows who leads.
    leader = replace(ours, winner=None, trials=tuple(replace(trial, is_winner=False) for trial in ours.trials))
    assert comparable(theirs) == comparable(leader)
    states = [trial.facts.state for trial in theirs.trials]
    assert states == [TrialState.COMPLETED, TrialState.RUNNING, TrialState.FAILED, TrialState.WAITING]
    assert [trial.facts.steps for trial in theirs.trials] == [20, 15, 0, 0]
    assert [trial.facts.score for trial in theirs.trials] == pytest.approx([4.08, 4.095, None, None])
    assert [trial.facts.seat_s for trial in theirs.trials] == pytest.approx([12 + 70, 12 + 20, 12, 0])
    assert [trial.num_repeats for trial in theirs.trials] == [1, 0, 0, 0]
    assert theirs.repeats_share == pytest.approx(20 / 55)


def test_log_and_mlflow_tell_the_same_of_a_finished_sweep(log: EventLog, runs: MlflowRuns) -> None:
    ended = ev.SweepEnded(state="COMPLETED", reason="all trials are done", best=1, time_s=sweeps.START_S + 99)
    registered = ev.ModelRegistered(number=1, model="docker", version="3", alias="candidate", source="runs:/1/merged")
    better = [replace(sweeps.ended(1), score=sweeps.loss_of(1, 15) - 1)]
    confirmed = ev.WinnerConfirmed(winner=1, seeds=(1,), contenders=())
    events = [*HAPPENED, *better, *REPEATS, confirmed, registered, ended]
    log.append(events)
    in_mlflow(runs, events)
    ours, theirs = sweep_of_log(log.directory.parent), sweep_of_mlflow(runs.tracking_uri, sweeps.SWEEP)
    assert comparable(theirs) == comparable(ours)
    assert (theirs.state, theirs.model, theirs.winner) == ("COMPLETED", "docker", 1)
    assert theirs.space == {"lora.r": ours.space["lora.r"]}


def test_of_two_sweeps_of_one_name_mlflow_gives_the_one_that_began_last(runs: MlflowRuns) -> None:
    in_mlflow(runs, [sweeps.started(), sweeps.created(0)])
    later = MlflowRuns(runs.tracking_uri, "another-experiment", artifact_root=runs.artifact_root)
    in_mlflow(later, [sweeps.started(), sweeps.created(0), sweeps.created(1)], first_time_s=sweeps.START_S + 100)
    assert len(sweep_of_mlflow(runs.tracking_uri, sweeps.SWEEP).trials) == 2


def test_runs_of_a_version_that_counted_less_are_read_as_far_as_they_go(runs: MlflowRuns) -> None:
    in_mlflow(runs, HAPPENED)
    run_id = runs.trial_run_id(0)
    for tag in ("seat_s", "until_s", "is_seated"):
        runs.client.delete_tag(run_id, f"pharos.{tag}")
    old = sweep_of_mlflow(runs.tracking_uri, sweeps.SWEEP).trials[0]
    assert (old.facts.steps, old.facts.clocks, old.facts.seat_s, old.cost_share) == (None, None, None, None)
    assert old.facts.score == pytest.approx(4.08)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quikstart", "sweep=quikstart: no sweep of this name is tracked in sqlite:.*Did you mean quickstart\\?$"),
        ("other", "There are: quickstart\\.$"),
        ("it's", "no sweep of this name"),
    ],
)
def test_a_sweep_that_mlflow_does_not_know_is_refused(runs: MlflowRuns, name: str, message: str) -> None:
    in_mlflow(runs, [sweeps.started()])
    with pytest.raises(TrackingError, match=message):
        sweep_of_mlflow(runs.tracking_uri, name)


def test_a_store_that_is_empty_or_not_there_says_so_and_is_not_made(store_uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="holds no sweep at all"):
        sweep_of_mlflow(store_uri, "quickstart")
    with pytest.raises(TrackingError, match="there is no MLflow store at sqlite:"):
        sweep_of_mlflow(f"sqlite:///{tmp_path / 'none.db'}", "quickstart")
    assert not (tmp_path / "none.db").exists()


def test_a_log_that_is_not_whole_is_refused(log: EventLog) -> None:
    log.append([sweeps.created(0)])
    with pytest.raises(StorageError, match="begins with trial_created, not sweep_started"):
        sweep_of_log(log.directory.parent)
    (log.directory / "000000.jsonl").unlink()
    with pytest.raises(StorageError, match="the event log is empty"):
        sweep_of_log(log.directory.parent)


def test_seat_time_goes_on_where_another_process_left_it(log: EventLog, runs: MlflowRuns) -> None:
    log.append(HAPPENED)
    events = [replace(event, sequence=index) for index, event in enumerate(HAPPENED)]
    for start in range(0, len(events), 3):
        another = MlflowRuns(runs.tracking_uri, "pharos", artifact_root=runs.artifact_root)
        another.attach(sweeps.SWEEP, sweeps.START_S)
        another.write(events[max(start - 2, 0) : start + 3])  # two of them again, as after a crash
    ours = sweep_of_log(log.directory.parent)
    seats = [trial.facts.seat_s for trial in sweep_of_mlflow(runs.tracking_uri, sweeps.SWEEP).trials]
    assert seats == pytest.approx([trial.facts.seat_s for trial in ours.trials])


def test_made_up_sweeps_of_many_trials_are_whole(tmp_path: Path) -> None:
    log = log_of(tmp_path / "many")
    for batch in many_trials(many_trials_spec(20)):
        log.append(batch)
    sweep = sweep_of_log(tmp_path / "many")
    assert len(sweep.trials) == 20
    assert {trial.facts.seat_s for trial in sweep.trials} == {160.0}
    assert sum(trial.cost_share or 0 for trial in sweep.trials) == pytest.approx(1)
    assert len(sweep.scored()) == 20
