"""What a kill may cost: time, never a finished trial, and never a number of a curve."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.support.mlflow_server import Server
from tests.support.small_sweep import (
    NAME,
    Workplace,
    finish,
    kill,
    largest_difference,
    prepared_rows,
    steps_of,
    train_alone,
    wait_until,
)

from pharos.plan.events import SweepStarted, TrialEnded, TrialSeated
from pharos.plan.ledger import Ledger
from pharos.spec.load import load_spec
from pharos.track.mlflow_client import connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

NUM_TRIALS = 6
CURVE_TOLERANCE = 1e-5


def is_in_the_middle(place: Workplace) -> bool:
    """One trial has ended, and others are between two checkpoints."""
    trials = place.ledger().trials.values() if place.paths.events.is_dir() else []
    running = [trial for trial in trials if trial.state == "RUNNING" and trial.checkpoint is not None]
    return len(running) >= 2 and any(trial.state.is_final for trial in trials)


def num_rounds(place: Workplace) -> int:
    return place.ledger().totals.rounds if place.paths.events.is_dir() else 0


def assert_whole(place: Workplace, scratch: Path, *, tracking_uri: str | None = None) -> None:
    """Every trial ended once, complete and with the curve that it has alone; MLflow shows each once; nothing runs."""
    ended = [event.number for event in place.events() if isinstance(event, TrialEnded)]
    assert sorted(ended) == list(range(NUM_TRIALS))
    trials = place.result()["trials"]
    assert [trial["number"] for trial in trials] == list(range(NUM_TRIALS))
    assert {trial["state"] for trial in trials} == {"COMPLETED"}
    spec, ledger = load_spec(place.spec), place.ledger()
    for number in range(NUM_TRIALS):
        alone = train_alone(
            spec,
            ledger.trials[number].plan,
            base=place.root / "base",
            data=prepared_rows(place.paths.storage),
            trials=scratch / "alone",
            report_every=4,
        )
        assert len(steps_of(place.events(), number)) == len(alone.steps) == 40
        assert largest_difference(place.events(), number, alone) < CURVE_TOLERANCE, f"trial {number}"
    assert_tracked_once(place, tracking_uri or place.paths.tracking_uri)
    wait_until(lambda: place.processes() == [], "something was left running", timeout_s=120)


def assert_tracked_once(place: Workplace, tracking_uri: str) -> None:
    client = connect(tracking_uri)
    experiment = client.get_experiment_by_name("pharos")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == [NAME, *(f"{NAME}-{number:04d}" for number in range(NUM_TRIALS))]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for number in range(NUM_TRIALS):
        history = client.get_metric_history(runs[f"{NAME}-{number:04d}"].info.run_id, "loss")
        steps = steps_of(place.events(), number)
        assert sorted((point.step, point.value) for point in history) == [
            (step["step"], step["loss"]) for step in steps
        ]
    assert [version.version for version in client.search_model_versions("name = 'switch'")] in ([1], ["1"])


def test_a_sweep_that_was_stopped_or_killed_goes_on_with_the_same_command_and_nothing_is_lost(
    place: Workplace, tmp_path: Path
) -> None:
    for with_signal in (signal.SIGTERM, signal.SIGINT):
        stop(place, with_signal)
    before = kill_in_the_middle(place)
    finished = {trial.number for trial in before.trials.values() if trial.state.is_final}
    assert finished
    assert not place.paths.result.exists()

    run = place.run("sweep")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"small: resumed, {len(finished)} of 6 trials" in run.stdout
    events = place.events()[before.next_sequence :]
    assert isinstance(events[0], SweepStarted)
    seated = {event.number: event for event in events if isinstance(event, TrialSeated)}
    assert set(seated) == set(range(NUM_TRIALS)) - finished
    for number, trial in before.trials.items():
        assert place.ledger().trials[number].plan == trial.plan
        if trial.checkpoint is not None and not trial.state.is_final:
            assert seated[number].resumed_step == trial.step > 0
    assert_whole(place, tmp_path)


def stop(place: Workplace, with_signal: signal.Signals) -> None:
    """Start the sweep, let it finish a round and interrupt it."""
    rounds_before = num_rounds(place)
    sweep = place.start("sweep")
    wait_until(lambda: num_rounds(place) > rounds_before, f"no round was finished before {with_signal!r}")
    kill(sweep.pid, with_signal)
    run = finish(sweep)
    assert run.returncode == 130, f"{with_signal!r}: {run.stdout}{run.stderr}"
    assert run.stdout.endswith("Stopped. Finished trials are kept, the others resume: run the same command again.\n")
    assert run.stderr == ""
    assert place.processes() == []
    assert not place.paths.result.exists()


def kill_in_the_middle(place: Workplace) -> Ledger:
    """Start the sweep and kill its driver; returns what the log had then."""
    sweep = place.start("sweep")
    wait_until(lambda: is_in_the_middle(place), "the sweep did not get to its middle")
    kill(sweep.pid)
    finish(sweep)
    # Ray's two agents notice after a minute that they are alone.
    wait_until(lambda: all("Agent" in line for line in place.command_lines()), "Ray outlived its driver", timeout_s=60)
    return place.ledger()


def test_a_tracking_server_that_stays_away_delays_the_hand_over_alone(
    place: Workplace, tmp_path: Path, server: Server
) -> None:
    sweep = place.start("sweep", "--tracking-uri", server.uri)
    wait_until(lambda: place.paths.events.is_dir() and bool(place.ledger().open_pools), "the pool did not come up")
    server.kill()
    run = finish(sweep)
    assert run.returncode == 2, run.stdout + run.stderr
    assert f"tracking.uri={server.uri} has stopped answering: " in run.stderr
    assert "run the same command again once the server is back" in run.stderr
    assert "Traceback" not in run.stderr
    before = place.ledger()
    assert all(trial.state.is_final for trial in before.trials.values())

    server.start()
    run = place.run("sweep", "--tracking-uri", server.uri)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not [event for event in place.events()[before.next_sequence :] if isinstance(event, TrialSeated)]
    assert_whole(place, tmp_path, tracking_uri=server.uri)
