"""A trial as a value: its number, what it chose, how long it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pharos.plan.hyperparameters import Hyperparameters, Params

BASELINE = 0
"""The number of the trial that holds the spec's own values."""
FIRST_REPEAT = 1_000_000
"""Numbers from here on are repeats of trials under further seeds."""
MAX_SEEDS = 99


class TrialState(StrEnum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    PRUNED = "PRUNED"
    STOPPED = "STOPPED"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        return self not in (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """One trial before it runs.

    num_steps: optimizer steps of its full budget, the horizon of its schedule.
    clocks_per_step: micro-batches that make one optimizer step where it is placed.
    """

    number: int
    params: Params
    hyperparameters: Hyperparameters
    num_steps: int
    clocks_per_step: int

    @property
    def num_clocks(self) -> int:
        """Micro-batches of the full budget."""
        return self.num_steps * self.clocks_per_step

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "params": dict(self.params),
            "hyperparameters": self.hyperparameters.to_json(),
            "num_steps": self.num_steps,
            "clocks_per_step": self.clocks_per_step,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TrialPlan:
        return cls(**{**fields, "hyperparameters": Hyperparameters.from_json(fields["hyperparameters"])})


@dataclass(frozen=True, slots=True)
class Repeat:
    """Which trial is repeated, and under which of the further seeds, counted from 1."""

    of: int
    seed: int

    @property
    def number(self) -> int:
        """Its own number as a trial; a later `num_trials` never comes near it."""
        return FIRST_REPEAT + self.of * (MAX_SEEDS + 1) + self.seed


def repeat_of(number: int) -> Repeat | None:
    """The repeat that a number stands for, none where it is a trial of the search."""
    return Repeat(*divmod(number - FIRST_REPEAT, MAX_SEEDS + 1)) if number >= FIRST_REPEAT else None


def trial_name(sweep: str, number: int) -> str:
    """The name a person sees, the same after any resume: quickstart-0007, or quickstart-0007-seed2 of a repeat."""
    repeat = repeat_of(number)
    return f"{sweep}-{number:04d}" if repeat is None else f"{sweep}-{repeat.of:04d}-seed{repeat.seed}"
