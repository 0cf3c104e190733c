"""A trial as a value: its number, what it chose, how long it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pharos.plan.hyperparameters import Hyperparameters, Params

BASELINE = 0
"""The number of the trial that holds the spec's own values."""


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


def trial_name(sweep: str, number: int) -> str:
    """The name a person sees, the same after any resume: quickstart-0007."""
    return f"{sweep}-{number:04d}"
