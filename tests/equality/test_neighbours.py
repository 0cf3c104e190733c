"""No trial sees who sits beside it: not their number, their seats, their lengths, their ranks, or their end in NaN."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from equality_pools import MIXED, WITH_DROPOUT, Rows, distance, pool_of, settings, train, train_in, trial
from torch import nn

from pharos.plan.exchange import Admit
from pharos.plan.trial import TrialPlan
from pharos.train.clocks import train_round
from pharos.train.group import SingleProcess
from pharos.train.seats import admit, open_worker


@pytest.mark.parametrize("trials", [MIXED, WITH_DROPOUT], ids=["without dropout", "with dropout"])
def test_together_equals_alone_in_double_precision(
    phi_fp64: nn.Module, rows: Rows, tmp_path: Path, trials: tuple[TrialPlan, ...]
) -> None:
    together = train(phi_fp64, rows, trials, settings(tmp_path / "together"))
    for plan in trials:
        alone = settings(tmp_path / "alone", seats_per_worker=1, r_max=plan.hyperparameters.r)
        assert distance(together[plan.number], train(phi_fp64, rows, [plan], alone)[plan.number]) < 1e-12, plan


def test_together_equals_alone_in_single_precision(llama_fp32: nn.Module, rows: Rows, tmp_path: Path) -> None:
    together = train(llama_fp32, rows, WITH_DROPOUT, settings(tmp_path / "together"))
    for plan in WITH_DROPOUT:
        alone = train(llama_fp32, rows, [plan], settings(tmp_path / "alone", seats_per_worker=1))[plan.number]
        both = zip(together[plan.number].losses, alone.losses, strict=True)
        assert max(abs(a - b) for a, b in both) < 1e-5, plan


def test_the_order_and_the_number_of_seats_change_nothing(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    two = train(phi_fp64, rows, WITH_DROPOUT[:2], settings(tmp_path / "two", seats_per_worker=2))
    others = [trial(10 + i, r=3 + i, seed=i, batch_size=1 + i, num_steps=5 + 4 * i) for i in range(4)]
    late = [others[0], WITH_DROPOUT[1], others[1], others[2], *WITH_DROPOUT[2:], WITH_DROPOUT[0], others[3]]
    seats = dict(enumerate(late))
    eight = train(phi_fp64, rows, seats, settings(tmp_path / "eight", seats_per_worker=8, report_every=7))
    for number in (0, 1):
        assert distance(two[number], eight[number]) < 1e-12


def test_a_diverging_neighbour_changes_no_bit(llama_fp32: nn.Module, rows: Rows, tmp_path: Path) -> None:
    calm = trial(9, num_steps=30, max_grad_norm=0.0)
    wild = replace(calm, hyperparameters=replace(calm.hyperparameters, learning_rate=1e30))
    one_round = settings(tmp_path / "calm", report_every=30)
    beside_calm = train(llama_fp32, rows, {0: MIXED[0], 1: calm, 2: MIXED[1], 3: MIXED[3]}, one_round)
    beside_wild = train(
        llama_fp32,
        rows,
        {0: MIXED[0], 1: wild, 2: MIXED[1], 3: MIXED[3]},
        replace(one_round, trials_dir=str(tmp_path / "wild")),
    )
    assert beside_wild[9].last is not None
    assert beside_wild[9].last.diverged == "loss nan and gradient norm nan at step 2"
    assert (beside_wild[9].last.step, beside_wild[9].last.done) == (1, False)
    assert len(beside_wild[9].losses) == 1
    for number in (0, 1, 3):
        calm_run, wild_run = beside_calm[number], beside_wild[number]
        assert calm_run.losses == wild_run.losses
        assert calm_run.norms == wild_run.norms
        assert all(torch.equal(calm_run.adapter[name], tensor) for name, tensor in wild_run.adapter.items())
        # A diverged seat is not evaluated: the pass has other shapes, in which a processor may add up in another order.
        assert calm_run.eval_losses == pytest.approx(wild_run.eval_losses, abs=1e-6)


def test_padding_stays_zero_and_idle_seats_do_not_move(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    chosen = settings(tmp_path, seats_per_worker=5)
    worker = open_worker(chosen, pool_of(phi_fp64, rows, chosen), SingleProcess(device=torch.device("cpu")))
    short = trial(4, num_steps=2, r=3, weight_decay=0.2)
    for seat, plan in {0: MIXED[0], 2: short, 4: MIXED[2]}.items():
        admit(worker, Admit(seat=seat, trial=plan))
    train_round(worker, 2)
    bank, optimizer = worker.pool.bank, worker.optimizer
    flat = (bank.values_KP, bank.grads_KP, optimizer.exp_avg_KP, optimizer.exp_avg_sq_KP, optimizer.steps_K)
    idle = [tensor[[1, 2, 3]].clone() for tensor in flat]
    moving = bank.values_KP[[0, 4]].clone()
    train_round(worker, 10)

    assert worker.seated[2].is_done
    for tensor, before in zip(flat, idle, strict=True):
        assert torch.equal(tensor[[1, 2, 3]], before)
    assert not torch.equal(bank.values_KP[[0, 4]], moving)
    for seat, plan in {0: MIXED[0], 2: short, 4: MIXED[2]}.items():
        for row_P in (bank.values_KP[seat], *worker.rows(seat).values()):
            unpadded = row_P.clone()
            bank.write(seat, bank.export(seat, row_P), unpadded)  # zeros beyond the true rank
            assert torch.equal(row_P, unpadded), plan


def test_a_trial_in_a_refilled_seat_equals_training_alone(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    """B ends at its step 8, A goes on, C takes B's seat: all three equal training alone."""
    a, b, c = WITH_DROPOUT[0], trial(5, num_steps=8, r=8, weight_decay=0.1), WITH_DROPOUT[3]
    chosen = settings(tmp_path / "refilled", seats_per_worker=2, report_every=4)
    refilled = train(phi_fp64, rows, {0: a, 1: b, 3: c}, chosen)
    alone = settings(tmp_path / "alone", seats_per_worker=1, report_every=4)
    for plan in (a, b, c):
        assert distance(refilled[plan.number], train(phi_fp64, rows, [plan], alone)[plan.number]) < 1e-12


def test_a_seat_that_was_used_starts_like_a_new_one_to_the_bit(phi_fp64: nn.Module, rows: Rows, tmp_path: Path) -> None:
    used, fresh = (settings(tmp_path / name, seats_per_worker=1) for name in ("used", "fresh"))
    diverging = trial(6, num_steps=9, learning_rate=1e300, max_grad_norm=0.0)
    pool = pool_of(phi_fp64, rows, used)
    runs = train_in(pool, {0: diverging, 1: WITH_DROPOUT[2]}, used, SingleProcess(device=torch.device("cpu"))).runs
    assert distance(runs[2], train(phi_fp64, rows, [WITH_DROPOUT[2]], fresh)[2]) == 0.0
