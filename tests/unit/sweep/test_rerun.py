"""A trial trained again: the same curve where nothing has changed, and a clear word where something has."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.support.handed_over import NUM_STEPS, TRIAL, finished_sweep
from typer.testing import CliRunner

from pharos.cli import app
from pharos.errors import DataError, ModelError
from pharos.handover.references import find_model
from pharos.plan.events import AdaptersRemoved, SweepStarted, TrialReported
from pharos.plan.paths import SweepPaths
from pharos.sweep.rerun import Rerun, logged_losses, rerun
from pharos.track.event_log import EventLog


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    finished_sweep(root)
    return root


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, with a log that says where it lies now."""
    root = tmp_path / "place"
    shutil.copytree(trained, root)
    rewrite_log(root)
    return root


def rewrite_log(root: Path, **changes: Any) -> None:
    """The log for this place. changes: of the trial's hyperparameters, as if it had been trained with them."""
    paths = SweepPaths(root / "results", "small")
    events = list(EventLog(paths.events).read())
    shutil.rmtree(paths.events)
    for index, event in enumerate(events):
        if isinstance(event, SweepStarted):
            events[index] = replace(event, root=str(root))
        elif event.kind == "trial_created":
            trial = dict(event.trial)
            trial["hyperparameters"] = trial["hyperparameters"] | changes
            events[index] = replace(event, trial=trial)
    EventLog(paths.events).append(events)


def again(root: Path, **options: Any) -> Rerun:
    options = {"base": root / "base"} | options
    return rerun(TRIAL, storage=root / "results", progress=lambda text: None, watch=lambda a, b: None, **options)


def test_a_trial_gives_the_same_curve_again_and_leaves_the_sweep_alone(place: Path) -> None:
    before = {path: path.read_bytes() for path in (place / "results" / "small").rglob("*") if path.is_file()}
    done = again(place)
    assert list(done.first) == list(done.again) == list(range(1, NUM_STEPS + 1))
    assert done.first[NUM_STEPS] < done.first[1] - 0.01, "it has learned something that could be wrong"
    assert done.is_same
    assert done.largest_difference() < 1e-6
    assert {path: path.read_bytes() for path in (place / "results" / "small").rglob("*") if path.is_file()} == before


def test_a_look_at_some_steps_stops_there(place: Path) -> None:
    done = again(place, num_steps=3)
    assert list(done.first) == list(done.again) == [1, 2, 3]
    assert done.num_steps == NUM_STEPS
    assert done.is_same


@pytest.mark.parametrize("changes", [{"seed": 1}, {"learning_rate": 1.01e-3}, {"data_seed": 5}])
def test_another_seed_or_rate_is_seen_and_not_taken_for_chance(place: Path, changes: dict[str, Any]) -> None:
    rewrite_log(place, **changes)
    done = again(place)
    assert not done.is_same
    assert done.reproduces_itself
    assert done.first_step_apart is not None
    assert done.first_step_apart <= 4


def test_a_trial_that_amplifies_its_last_bits_is_told_from_one_that_has_changed(place: Path) -> None:
    rewrite_log(place, learning_rate=1.0)
    done = again(place)
    assert not done.is_same
    assert not done.reproduces_itself


def test_the_verb_shows_both_curves_and_its_exit_code_is_the_verdict(place: Path) -> None:
    command = ["rerun", TRIAL, "--storage", str(place / "results"), "--base", str(place / "base")]
    same = CliRunner().invoke(app, command)
    assert same.exit_code == 0, same.output
    assert f"the same: {TRIAL} again, within 1e-05 over its first {NUM_STEPS} steps" in same.output
    assert len([line for line in same.output.splitlines() if line.split()[:1] == ["8"]]) == 1
    rewrite_log(place, seed=1)
    other = CliRunner().invoke(app, command)
    assert other.exit_code == 1
    assert re.search(r"not the same: step [1-4] is the first that is off by more than 1e-05", other.output)
    assert "not by chance" in other.output


def test_a_trial_whose_adapter_was_deleted_is_trained_again_and_cannot_be_used(place: Path) -> None:
    paths = SweepPaths(place / "results", "small")
    number = int(TRIAL.rpartition("-")[2])
    EventLog(paths.events).append([AdaptersRemoved(numbers=(number,), reason="keep.adapters=1")])
    shutil.rmtree(paths.trials / f"{number:04d}")
    assert again(place).is_same
    with pytest.raises(ModelError, match=rf"{TRIAL}: its adapter was deleted, .*keep\.adapters.*pharos rerun"):
        find_model(TRIAL, storage=place / "results", base=place / "base")


def test_changed_rows_are_refused_with_both_digests(place: Path) -> None:
    rows = place / "rows.jsonl"
    rows.write_text(rows.read_text() + json.dumps({"prompt": "please wait", "completion": "on"}) + "\n")
    with pytest.raises(DataError, match=r"its rows, or how .*, have changed .*: digest of data \w{16}, now \w{16}"):
        again(place)


def test_a_base_of_another_shape_is_refused_with_both_digests(place: Path) -> None:
    weights = place / "base" / "model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"extra": tensors["model.norm.weight"].clone()}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"trained on a base with digest \w{16}.* another one, \w{16}"):
        again(place)


def test_a_base_with_other_weights_of_the_same_shape_is_seen_by_its_curve(place: Path) -> None:
    weights = place / "base" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 1.001 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    done = again(place)
    assert not done.is_same
    assert done.reproduces_itself


def test_what_is_no_trial_is_refused(place: Path) -> None:
    with pytest.raises(ModelError, match=r"is no trial of a sweep"):
        rerun(str(place / "base"), storage=place / "results", progress=print, watch=lambda a, b: None)
    with pytest.raises(ModelError, match=r"small-0003: small has no such trial"):
        rerun("small-0003", storage=place / "results", progress=print, watch=lambda a, b: None)


def test_steps_that_a_resume_repeated_count_as_they_were_first() -> None:
    def report(*steps: tuple[int, float]) -> TrialReported:
        return TrialReported(
            number=0, step=1, clocks=1, steps=tuple({"step": step, "loss": loss} for step, loss in steps),
            eval_metrics={}, best_metric=None, best_step=None, best_checkpoint=None, checkpoint=None,
        )  # fmt: skip

    events = [report((1, 3.0), (2, 2.0)), report((2, 2.5), (3, 1.0))]
    assert logged_losses(events, 0) == {1: 3.0, 2: 2.0, 3: 1.0}
    assert logged_losses(events, 1) == {}


def test_a_run_that_ended_early_or_is_no_number_is_not_the_same() -> None:
    plain = {"trial": "t", "dtype": "float32", "num_steps": 2, "seconds": 1.0, "changed": {}}
    first = {1: 1.0, 2: 0.5}
    assert Rerun(first=first, again={1: 1.0, 2: 0.5}, **plain).is_same
    assert not Rerun(first=first, again={1: 1.0}, **plain).is_same
    assert not Rerun(first=first, again={1: 1.0, 2: float("nan")}, **plain).is_same
