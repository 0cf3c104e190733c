"""A trial that was paused to disk goes on as if nothing had happened: in another seat, another pool, in mid-step."""

from __future__ import annotations

from pathlib import Path

import pytest
from equality_pools import WITH_DROPOUT, Rows, Run, distance, settings, train, trial
from torch import nn


def joined(first: Run, second: Run) -> Run:
    return Run(steps=first.steps + second.steps, eval_losses=second.eval_losses, last=second.last)


@pytest.mark.parametrize("report_every", [6, 7], ids=["between steps", "within a step"])
def test_the_same_seat_goes_on_to_the_bit(phi_fp64: nn.Module, rows: Rows, tmp_path: Path, report_every: int) -> None:
    plan = WITH_DROPOUT[2]  # steps of three clocks
    whole, parts = (
        settings(tmp_path / name, seats_per_worker=1, report_every=report_every) for name in ("whole", "parts")
    )
    uninterrupted = train(phi_fp64, rows, [plan], whole)[2]
    first = train(phi_fp64, rows, [plan], parts, stop_after=2)[2]
    second = train(phi_fp64, rows, [plan], parts, checkpoints={2: first.checkpoint})[2]
    assert distance(uninterrupted, joined(first, second)) == 0.0


def test_another_seat_beside_others_goes_on_the_same(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    chosen = settings(tmp_path / "four", report_every=7)
    uninterrupted = train(phi_fp64, rows, WITH_DROPOUT, chosen)
    paused = train(phi_fp64, rows, WITH_DROPOUT, settings(tmp_path / "parts", report_every=7), stop_after=1)
    elsewhere = settings(tmp_path / "parts", seats_per_worker=3, r_max=16, report_every=5)
    seats = {0: trial(8, r=16, num_steps=40), 1: WITH_DROPOUT[2], 2: WITH_DROPOUT[0]}
    resumed = train(phi_fp64, rows, seats, elsewhere, checkpoints={n: paused[n].checkpoint for n in (0, 2)})
    for number in (0, 2):
        whole = joined(paused[number], resumed[number])
        assert distance(uninterrupted[number], whole) < 1e-12


def test_the_best_evaluation_is_remembered_over_a_pause(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    plan = trial(1, num_steps=40, learning_rate=0.05)  # overfits, so that its best lies in the middle
    whole, parts = (settings(tmp_path / name, seats_per_worker=1, report_every=4) for name in ("whole", "parts"))
    uninterrupted = train(phi_fp64, rows, [plan], whole)[1].last
    first = train(phi_fp64, rows, [plan], parts, stop_after=6)[1]
    resumed = train(phi_fp64, rows, [plan], parts, checkpoints={1: first.checkpoint})[1].last
    assert uninterrupted is not None
    assert resumed is not None
    assert 0 < (uninterrupted.best_step or 0) < 20
    assert (resumed.best_metric, resumed.best_step) == (uninterrupted.best_metric, uninterrupted.best_step)
    kept = {resumed.checkpoint, resumed.best_checkpoint}
    assert {str(path) for path in (tmp_path / "parts" / "0001").iterdir()} == kept


def test_a_pool_that_is_called_back_in_mid_round_costs_no_number(
    phi_fp64: nn.Module, rows: Rows, tmp_path: Path
) -> None:
    """Its trials are saved where they are, not evaluated there, and evaluated later where they would have been."""
    whole, parts = (settings(tmp_path / name, report_every=8) for name in ("whole", "parts"))
    uninterrupted = train(phi_fp64, rows, WITH_DROPOUT, whole)
    first = train(phi_fp64, rows, WITH_DROPOUT, parts, hurried_at=5, stop_after=1)
    assert {run.last.clocks for run in first.values() if run.last} == {5}
    assert not any(run.eval_losses for run in first.values())
    resumed = train(phi_fp64, rows, WITH_DROPOUT, parts, checkpoints={n: run.checkpoint for n, run in first.items()})
    for number, run in uninterrupted.items():
        assert distance(run, joined(first[number], resumed[number])) == 0.0
        assert run.eval_losses == resumed[number].eval_losses


def test_trials_of_different_standing_are_each_evaluated_where_they_would_be_alone(
    phi_fp64: nn.Module, rows: Rows, tmp_path: Path
) -> None:
    whole, parts = (settings(tmp_path / name, report_every=8) for name in ("whole", "parts"))
    uninterrupted = train(phi_fp64, rows, WITH_DROPOUT[:2], whole)
    first = train(phi_fp64, rows, WITH_DROPOUT[:1], parts, hurried_at=3, stop_after=1)
    both = train(phi_fp64, rows, WITH_DROPOUT[:2], parts, checkpoints={0: first[0].checkpoint})
    assert uninterrupted[0].eval_losses == pytest.approx(both[0].eval_losses, abs=1e-12)
    assert uninterrupted[1].eval_losses == pytest.approx(both[1].eval_losses, abs=1e-12)
