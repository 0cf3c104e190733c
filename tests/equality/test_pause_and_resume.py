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
