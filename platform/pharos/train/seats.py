"""One rank of a pool: its seats, the trials in them, and what orders do to them: admit, evict, score, save.

Everything that changes while a pool runs lies in one Worker. The clocks themselves are in clocks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pharos.model.adapter_bank import SeatTensors, Visitor, fresh_adapter
from pharos.model.adapter_files import read_adapter
from pharos.plan.exchange import Admit, Evict, Score, ScoreReport
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import TrialPlan
from pharos.train.batches import target_counts
from pharos.train.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from pharos.train.checkpoint_place import CheckpointPlace
from pharos.train.evaluation import mean_losses
from pharos.train.group import Group
from pharos.train.open_pool import Pool
from pharos.train.optimizer import SeatedAdamW
from pharos.train.stopwatch import Stopwatch


@dataclass(slots=True, kw_only=True)
class Seated:
    """A trial in a seat of this rank. moved: it trained in this round; saved: the name of its last checkpoint."""

    trial: TrialPlan
    progress: Progress
    diverged: str | None = None
    moved: bool = False
    saved: str | None = None

    @property
    def is_done(self) -> bool:
        return self.diverged is None and self.progress.step >= self.trial.num_steps

    @property
    def is_live(self) -> bool:
        return self.diverged is None and self.progress.step < self.trial.num_steps

    @property
    def clocks_left(self) -> int:
        return max(1, self.trial.num_clocks - self.progress.clocks) if self.is_live else 0


@dataclass(slots=True, kw_only=True)
class Worker:
    """One rank of a pool: what it was given, and all that changes while it runs.

    losses_K: each seat's part of its unfinished step's mean loss. target_counts: trained tokens of each training row.
    on_clock: called after every clock.
    """

    settings: PoolSettings
    pool: Pool
    group: Group
    optimizer: SeatedAdamW
    losses_K: torch.Tensor
    target_counts: np.ndarray
    stopwatch: Stopwatch
    on_clock: Callable[[], None] = lambda: None
    seated: dict[int, Seated] = field(default_factory=dict)

    @property
    def is_split(self) -> bool:
        """Whether each trial's batch is split over the ranks; otherwise each rank has trials of its own."""
        return self.settings.placement == "data_parallel"

    @property
    def writes(self) -> bool:
        """Whether this rank reports and saves its seats: in a data-parallel pool all ranks hold the same."""
        return not self.is_split or self.group.rank == 0

    @property
    def first_seat(self) -> int:
        """The number of local seat 0 in the whole pool."""
        return 0 if self.is_split else self.group.rank * self.settings.seats_per_worker

    def local_seat(self, seat: int) -> int | None:
        """The local seat of a seat of the pool, none if it is another rank's."""
        local = seat - self.first_seat
        return local if 0 <= local < self.settings.seats_per_worker else None

    @property
    def place(self) -> CheckpointPlace:
        """Where the trials' checkpoints lie."""
        return CheckpointPlace(self.settings.trials_dir)

    def rows(self, seat: int) -> dict[str, torch.Tensor]:
        """A seat's rows (P,) of the tensors that a checkpoint holds beside the adapter."""
        return {
            "exp_avg": self.optimizer.exp_avg_KP[seat],
            "exp_avg_sq": self.optimizer.exp_avg_sq_KP[seat],
            "grad": self.pool.bank.grads_KP[seat],
        }


def open_worker(settings: PoolSettings, pool: Pool, group: Group) -> Worker:
    """A rank with empty seats."""
    stopwatch = Stopwatch(group.device)
    pool.base.time_gathers(stopwatch)
    return Worker(
        settings=settings,
        pool=pool,
        group=group,
        optimizer=SeatedAdamW(pool.bank),
        losses_K=torch.zeros(pool.bank.num_seats, dtype=pool.bank.values_KP.dtype, device=group.device),
        target_counts=target_counts(pool.data["train"]),
        stopwatch=stopwatch,
    )


def admit(worker: Worker, order: Admit) -> None:
    """Seat a trial, fresh or from its checkpoint; nothing of the seat's last trial remains."""
    seat = worker.local_seat(order.seat)
    if seat is None:
        return
    bank, hyperparameters = worker.pool.bank, order.trial.hyperparameters
    if order.checkpoint is None:
        adapter = fresh_adapter(bank.targets, r=hyperparameters.r, seed=hyperparameters.seed)
        start = Checkpoint(trial=order.trial, progress=Progress(), adapter=adapter, state={})
    else:
        with worker.place.reading(order.checkpoint) as directory:
            start = load_checkpoint(directory, trial=order.trial, base_key=worker.settings.base_key)
    bank.load(seat, start.adapter, r=hyperparameters.r, scaling=hyperparameters.scaling)
    worker.optimizer.reset(seat, step=start.progress.step)
    for name, row_P in worker.rows(seat).items():
        # A split trial's saved gradient is already the sum over the ranks: one of them carries it on.
        if name in start.state and (name != "grad" or worker.writes):
            bank.write(seat, start.state[name], row_P)
    worker.losses_K[seat] = start.progress.partial_loss if worker.writes else 0.0
    saved = Path(order.checkpoint).name if order.checkpoint else None
    worker.seated[seat] = Seated(trial=order.trial, progress=start.progress, saved=saved)


def evict(worker: Worker, order: Evict) -> None:
    """Empty a seat. Raises ValueError if another trial, or none, sits there."""
    seat = worker.local_seat(order.seat)
    if seat is None:
        return
    seated = worker.seated.pop(seat, None)
    if seated is None or seated.trial.number != order.number:
        raise ValueError(f"trial {order.number} does not sit in seat {order.seat}")
    worker.pool.bank.clear(seat)
    worker.optimizer.reset(seat)
    worker.losses_K[seat] = 0.0


def score(worker: Worker, orders: Sequence[Score]) -> list[ScoreReport]:
    """Evaluate finished adapters, as many at a time as a rank has seats, their rows split over the ranks.

    A collective. The seats' own trials stand aside meanwhile and are not changed.
    """
    reports: list[ScoreReport] = []
    seats = worker.pool.bank.num_seats
    for split in dict.fromkeys(order.split for order in orders):
        wanted = [order for order in orders if order.split == split]
        for start in range(0, len(wanted), seats):
            together = wanted[start : start + seats]
            with worker.pool.bank.visitors([_visitor(worker, order) for order in together]):
                losses = mean_losses(
                    worker.pool.data[split],
                    range(len(together)),
                    base=worker.pool.base,
                    bank=worker.pool.bank,
                    group=worker.group,
                    micro_batch_size=worker.settings.micro_batch_size,
                    split_rows=True,
                )
            reports += [
                ScoreReport(number=order.number, split=split, metrics={f"{split}_loss": loss})
                for order, loss in zip(together, losses, strict=True)
            ]
    return reports


def save_moved(worker: Worker) -> int:
    """Write a checkpoint of every trial that trained in this round, and return how many bytes this rank wrote.

    A collective where batches are split.
    """
    num_bytes = 0
    with worker.place.writing() as trials:
        for seat, seated in sorted(worker.seated.items()):
            if not seated.moved or seated.diverged is not None:
                continue
            state = _state_to_save(worker, seat, seated)
            if not worker.writes:
                continue
            directory = trials / f"{seated.trial.number:04d}" / seated.progress.checkpoint_name
            save_checkpoint(
                directory,
                Checkpoint(
                    trial=seated.trial, progress=seated.progress, adapter=worker.pool.bank.export(seat), state=state
                ),
                base_key=worker.settings.base_key,
                base_name=worker.settings.base_dir,
                model_modules=worker.pool.linear_modules,
            )
            seated.saved = seated.progress.checkpoint_name
            num_bytes += sum(file.stat().st_size for file in directory.iterdir())
    return num_bytes


def discard_old_checkpoints(worker: Worker) -> None:
    """Once an exchange has heard of the newest checkpoints: keep each trial's latest and best."""
    if worker.writes:
        worker.place.keep_only(
            {
                seated.trial.number: {seated.saved, seated.progress.best_checkpoint or seated.saved}
                for seated in worker.seated.values()
                if seated.moved and seated.saved is not None
            }
        )


def _visitor(worker: Worker, order: Score) -> Visitor | None:
    if order.adapter is None:
        return None
    with worker.place.reading(order.adapter) as directory:
        adapter = read_adapter(directory)
    return Visitor(tensors=adapter.tensors, r=adapter.r, scaling=adapter.scaling)


def _state_to_save(worker: Worker, seat: int, seated: Seated) -> dict[str, SeatTensors]:
    """Moments; and of an unfinished step its gradient and loss so far, summed over the ranks that share it."""
    rows = worker.rows(seat)
    gradient, loss = rows.pop("grad"), worker.losses_K[seat : seat + 1]
    if seated.progress.rows_done > 0:
        if worker.is_split:
            gradient, loss = gradient.clone(), loss.clone()
            worker.group.all_reduce(gradient)
            worker.group.all_reduce(loss)
        rows["grad"] = gradient
    seated.progress.partial_loss = loss.item()
    return {name: worker.pool.bank.export(seat, row_P) for name, row_P in rows.items()}
