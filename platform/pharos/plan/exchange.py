"""What the desk and a pool say to each other at the end of every round. Plain values that pickle.

Seats are numbered over the whole pool: local seat k of rank w is w * seats_per_worker + k.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pharos.plan.trial import TrialPlan

Split = Literal["train", "eval", "test"]
HeldOut = Literal["eval", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Seat a trial; `checkpoint` is the directory that it resumes from, none for a fresh start."""

    seat: int
    trial: TrialPlan
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict:
    """Free a seat. The trial's checkpoint of this round is already on disk."""

    seat: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Evaluate a finished trial's kept adapter on a split; it takes no part in any clock."""

    number: int
    adapter: str | None
    """Directory of the adapter; none scores the untrained base."""
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The desk's answer to a round, the same for every rank."""

    evict: tuple[Evict, ...] = ()
    admit: tuple[Admit, ...] = ()
    score: tuple[Score, ...] = ()
    close: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One optimizer step of one trial. loss is the mean over the step's trained tokens, before the update.

    epoch is the share of the training rows seen so far; num_tokens counts the trained tokens of the step.
    """

    step: int
    time_s: float
    loss: float
    grad_norm: float
    learning_rate: float
    epoch: float
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatReport:
    """What one trial did in one round.

    step: optimizer steps done; clocks: own micro-batches done, both since the trial began.
    checkpoint: directory written at this round's end; best_*: the evaluation that scores the trial so far.
    diverged: the reason when a loss or gradient was not finite; the trial no longer trains.
    """

    number: int
    seat: int
    step: int
    clocks: int
    steps: tuple[StepMetrics, ...] = ()
    eval_metrics: dict[str, float] = field(default_factory=dict)
    best_metric: float | None = None
    best_step: int | None = None
    best_checkpoint: str | None = None
    checkpoint: str | None = None
    done: bool = False
    diverged: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    number: int
    split: Split
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTimes:
    """Seconds of a round on rank 0, by what they were spent on.

    gather_s to optimizer_s divide clocks_s as one clock of the round was divided, whose parts were timed; what they
    leave is the making of batches. gather_s: waiting for the base's shards, which is in none of the others.
    """

    clocks_s: float = 0.0
    evaluation_s: float = 0.0
    checkpoint_s: float = 0.0
    exchange_s: float = 0.0
    gather_s: float = 0.0
    forward_s: float = 0.0
    backward_s: float = 0.0
    optimizer_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMemory:
    """Bytes of one worker at a round's end.

    base: its share, gathered parts released. seats: adapters, gradients, moments. activations: on a GPU the peak of the
    round beyond those two; 0 on a CPU, where nothing counts them. host: resident memory of the process.
    """

    worker: int
    base: int
    seats: int
    activations: int
    host: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """What a pool did in one round, gathered over its ranks.

    num_tokens: trained tokens; num_padded_tokens: all positions that passed through the base, pads included;
    num_row_tokens: those of them that were no pads. live_seat_clocks: clocks summed over the seats that trained in
    them. checkpoint_bytes: written for the trials of this round.
    """

    pool: str
    round: int
    clocks: int
    live_seat_clocks: int
    num_tokens: int
    num_padded_tokens: int
    times: RoundTimes
    seats: tuple[SeatReport, ...] = ()
    scores: tuple[ScoreReport, ...] = ()
    num_row_tokens: int = 0
    checkpoint_bytes: int = 0
    memory: tuple[WorkerMemory, ...] = ()
