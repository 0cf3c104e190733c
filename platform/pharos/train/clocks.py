"""The clocks of a round: every live seat advances by one micro-batch, in lockstep on all ranks.

The hot path. Nothing here waits for the device until the round's end: losses, norms and the check for non-finite
numbers stay there. What shapes a clock (who is live, which rows, whose batch is complete) the host knows by itself.

Shape letters: K seats, S live seats, R rows, T tokens, N trained positions, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from pharos.model.dropout import DropoutMasks, dropout_masks, row_keys
from pharos.plan.exchange import StepMetrics
from pharos.train.batches import Share, fuse, next_share, step_targets, to_device
from pharos.train.loss import logits_at, sums_by_seat, token_losses
from pharos.train.schedule import learning_rate_at
from pharos.train.seats import Seated, Worker


@dataclass(slots=True, kw_only=True)
class RoundLog:
    """What a round's clocks leave behind on this rank.

    clocks: how many were turned, the same on all ranks. clock_s: seconds of one, as this host saw it. steps: finished
    optimizer steps by local seat. num_tokens: trained; num_padded_tokens: all positions, pads included; num_row_tokens:
    without pads. live_seat_clocks: clocks summed over the seats that trained in them. parts_s: seconds of the round's
    clocks by part, as the one clock that was timed divides them. checkpoint_bytes: written at the round's end.
    """

    clocks: int = 0
    clock_s: float = 0.0
    steps: dict[int, list[StepMetrics]] = field(default_factory=dict)
    num_tokens: int = 0
    num_row_tokens: int = 0
    num_padded_tokens: int = 0
    live_seat_clocks: int = 0
    parts_s: dict[str, float] = field(default_factory=dict)
    checkpoint_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _FinishedStep:
    """A step whose loss and norm are still on the device, as two scalars of one tensor."""

    clock: int
    seat: int
    metrics: StepMetrics
    loss_and_norm: torch.Tensor


def train_round(
    worker: Worker,
    clocks: int,
    *,
    is_hurried: Callable[[], bool] = lambda: False,
    look_up_every: int = 1,
    timed: int = 0,
) -> RoundLog:
    """Turn the clock; then read losses and norms, and mark the trials whose numbers are no longer finite.

    Rank 0 looks up every so many clocks whether it `is_hurried`; then the round ends there, on all ranks.
    timed: the clock, of those of this round, whose parts are timed.
    """
    log = RoundLog()
    pending: list[_FinishedStep] = []
    for seated in worker.seated.values():
        seated.moved = False
    started_s = time.time()
    for clock in range(clocks):
        if clock and clock % look_up_every == 0 and _hears(worker, is_hurried):
            break
        if clock == timed:
            worker.stopwatch.start()
        pending += turn_clock(worker, log, clock)
        worker.stopwatch.stop()
        worker.on_clock()
        log.clocks += 1
    values = torch.stack([step.loss_and_norm for step in pending]).tolist() if pending else []
    log.clock_s = (time.time() - started_s) / max(1, log.clocks)
    log.parts_s = {part: share * log.clocks * log.clock_s for part, share in worker.stopwatch.shares().items()}
    for step, (loss, norm) in zip(pending, values, strict=True):
        seated = worker.seated[step.seat]
        if seated.diverged is not None:
            continue
        if not (math.isfinite(loss) and math.isfinite(norm)):
            seated.diverged = f"loss {loss:g} and gradient norm {norm:g} at step {step.metrics.step}"
            seated.progress.step, seated.progress.rows_done = step.metrics.step - 1, 0
            continue
        time_s = started_s + (step.clock + 1) * log.clock_s  # when it ran: the host runs ahead of a GPU
        log.steps.setdefault(step.seat, []).append(replace(step.metrics, time_s=time_s, loss=loss, grad_norm=norm))
    return log


def _hears(worker: Worker, is_hurried: Callable[[], bool]) -> bool:
    """What rank 0 hears; a rank that decided alone would leave the others in a collective."""
    return bool(worker.group.broadcast_object(is_hurried() if worker.group.rank == 0 else None))


def turn_clock(worker: Worker, log: RoundLog, clock: int) -> list[_FinishedStep]:
    """One micro-batch of every live seat: forward, backward, and a step for each seat whose batch is complete."""
    pool = worker.pool
    live = [seat for seat, seated in sorted(worker.seated.items()) if seated.is_live]
    trials = [worker.seated[seat] for seat in live]
    shares = [_share(worker, seated) for seated in trials]
    batch = fuse(pool.data["train"], [share.indices for share in shares], worker.group.device)
    # A rank without live seats runs a dummy row without targets through seat 0: all ranks need a backward pass.
    worker.stopwatch.enter("forward")
    with pool.bank.active(live or [0], _masks(worker, trials, shares, batch.rows_per_seat)):
        logits_NV = logits_at(pool.base.module, batch.tokens_RT, batch.positions_N, batch.own_positions_RT)
        losses_N = token_losses(logits_NV, batch.targets_N)
        losses_S = sums_by_seat(losses_N, batch.seats_N, max(1, len(live))) * _weights(worker, trials, losses_N)
        worker.stopwatch.enter("backward")
        losses_S.sum().backward()
    pool.base.release()
    worker.stopwatch.enter("optimizer")

    for index, (seat, seated, share) in enumerate(zip(live, trials, shares, strict=True)):
        worker.losses_K[seat] += losses_S[index].detach()
        seated.progress.clocks += 1
        seated.progress.rows_done = share.rows_done
        seated.moved = True
    stepping = [seat for seat, share in zip(live, shares, strict=True) if share.ends_step]
    if worker.is_split:
        _sum_over_ranks(worker, stepping)
    log.num_tokens += len(batch.targets_N)
    log.num_row_tokens += batch.num_row_tokens
    log.num_padded_tokens += batch.tokens_RT.numel()
    log.live_seat_clocks += len(live) if worker.writes else 0
    return [_finish_step(worker, clock, seat) for seat in stepping]


def _share(worker: Worker, seated: Seated) -> Share:
    hyperparameters = seated.trial.hyperparameters
    return next_share(
        num_rows=len(worker.pool.data["train"]),
        batch_size=hyperparameters.batch_size,
        data_seed=hyperparameters.data_seed,
        step=seated.progress.step,
        rows_done=seated.progress.rows_done,
        micro_batch_size=worker.settings.micro_batch_size,
        num_shards=worker.settings.num_shards,
        shard=worker.group.rank if worker.is_split else 0,
    )


def _masks(
    worker: Worker, trials: Sequence[Seated], shares: Sequence[Share], rows_per_seat: int
) -> DropoutMasks | None:
    """Dropout of this clock's rows; none where no live trial has any."""
    rates = [seated.trial.hyperparameters.lora_dropout for seated in trials]
    if not any(rates):
        return None
    keys = [
        row_keys(
            seed=seated.trial.hyperparameters.seed,
            step=seated.progress.step,
            rows=np.pad(share.places, (0, rows_per_seat - len(share.places))),
        )
        for seated, share in zip(trials, shares, strict=True)
    ]
    return dropout_masks(
        np.concatenate(keys),
        worker.pool.bank.module_keys,
        np.repeat(rates, rows_per_seat),
        device=worker.group.device,
    )


def _weights(worker: Worker, trials: Sequence[Seated], losses_N: torch.Tensor) -> torch.Tensor:
    """One over the trained tokens of each trial's whole optimizer step (S,), so that its losses sum to their mean."""
    counts = [max(1, _step_targets(worker, seated)) for seated in trials] or [1]
    return to_device(1.0 / np.array(counts, dtype=np.float64), losses_N.device).to(losses_N.dtype)


def _step_targets(worker: Worker, seated: Seated) -> int:
    hyperparameters = seated.trial.hyperparameters
    return step_targets(
        worker.target_counts,
        batch_size=hyperparameters.batch_size,
        data_seed=hyperparameters.data_seed,
        step=seated.progress.step,
    )


def _sum_over_ranks(worker: Worker, seats: Sequence[int]) -> None:
    """Add up the ranks' parts of these seats' gradients and losses: in one flat sum, unless other seats lie between."""
    if not seats:
        return
    is_span = seats[-1] - seats[0] + 1 == len(seats)
    for first, last in [(seats[0], seats[-1])] if is_span else [(seat, seat) for seat in seats]:
        worker.group.all_reduce(worker.pool.bank.grads_KP[first : last + 1])
        worker.group.all_reduce(worker.losses_K[first : last + 1])


def _finish_step(worker: Worker, clock: int, seat: int) -> _FinishedStep:
    """The optimizer step of one seat, at its own place in its own schedule."""
    seated = worker.seated[seat]
    hyperparameters, progress = seated.trial.hyperparameters, seated.progress
    learning_rate = learning_rate_at(progress.step, hyperparameters=hyperparameters, num_steps=seated.trial.num_steps)
    loss = worker.losses_K[seat]
    norm = worker.optimizer.step(seat, loss=loss, hyperparameters=hyperparameters, learning_rate=learning_rate)
    loss_and_norm = torch.stack([loss, norm])
    loss.zero_()
    num_tokens = _step_targets(worker, seated)
    progress.step += 1
    metrics = StepMetrics(
        step=progress.step,
        time_s=0.0,
        loss=math.nan,
        grad_norm=math.nan,
        learning_rate=learning_rate,
        epoch=progress.step * hyperparameters.batch_size / len(worker.pool.data["train"]),
        num_tokens=num_tokens,
    )
    return _FinishedStep(clock=clock, seat=seat, metrics=metrics, loss_and_norm=loss_and_norm)
