"""A sweep's events and directories, made up for the tests of tracking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pharos.plan import events as ev
from pharos.plan.hyperparameters import hyperparameters
from pharos.plan.trial import TrialPlan
from pharos.spec.model import SweepSpec
from pharos.track.event_log import EventLog

SWEEP = "quickstart"
START_S = 1_700_000_000.25
SPEC: dict[str, Any] = {
    "name": SWEEP,
    "base": "builtin:tiny",
    "data": {"train": "builtin:docker-commands", "max_length": 64},
    "search": {"num_trials": 2, "space": {"lora.r": {"ordered": [2, 4]}}},
    "tracking": {"uri": "http://ada:sesame@tracking:5000"},
}


def started(*, resumed: bool = False, time_s: float = START_S) -> ev.SweepStarted:
    spec = SweepSpec.model_validate(SPEC)
    return ev.SweepStarted(
        sweep=SWEEP,
        spec=spec.model_dump(mode="json", by_alias=True),
        digests={"spec": "5bec", "data": "da7a", "base": "ba5e"},
        versions={"python": "3.11.9", "torch": "2.13.0"},
        num_trials=2,
        metric="eval_loss",
        resumed=resumed,
        time_s=time_s,
    )


def created(number: int) -> ev.TrialCreated:
    params = {"lora.r": 4, "lora.alpha_over_r": 2}
    chosen = hyperparameters(SweepSpec.model_validate(SPEC), params)
    plan = TrialPlan(number=number, params=params, hyperparameters=chosen, num_steps=200, clocks_per_step=1)
    return ev.TrialCreated(number=number, trial=plan.to_json(), time_s=START_S + 1)


def seated(number: int) -> ev.TrialSeated:
    return ev.TrialSeated(number=number, pool="pool-0", seat=number, resumed_step=0, time_s=START_S + 2)


def loss_of(number: int, step: int) -> float:
    return 4.0 + number / 100 - step / 1000


def step_metrics(number: int, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "time_s": START_S + 10 + step / 8,
        "loss": loss_of(number, step),
        "grad_norm": 1.0 / step,
        "learning_rate": 2e-4,
        "epoch": step / 100,
        "num_tokens": 50,
    }


def reported(number: int, first_step: int, last_step: int) -> ev.TrialReported:
    """A round of a trial: its steps, the last one included, and an evaluation."""
    return ev.TrialReported(
        number=number,
        step=last_step,
        clocks=last_step,
        steps=tuple(step_metrics(number, step) for step in range(first_step, last_step + 1)),
        eval_metrics={"eval_loss": loss_of(number, last_step) + 0.1},
        best_metric=loss_of(number, last_step) + 0.1,
        best_step=last_step,
        best_checkpoint=None,
        checkpoint=None,
        time_s=START_S + 10 + last_step / 8,
    )


def ended(number: int, state: str = "COMPLETED", reason: str = "ran its full budget") -> ev.TrialEnded:
    return ev.TrialEnded(number=number, state=state, reason=reason, score=3.5, step=20, time_s=START_S + 90)


def rounds(num_trials: int, num_steps: int, steps_per_round: int) -> Iterator[list[ev.Event]]:
    """A whole sweep, all trials in lockstep: what the desk appends and publishes round by round."""
    numbers = range(num_trials)
    yield [started(), *(created(number) for number in numbers), *(seated(number) for number in numbers)]
    for last_step in range(steps_per_round, num_steps + 1, steps_per_round):
        yield [reported(number, last_step - steps_per_round + 1, last_step) for number in numbers]
    yield [
        *(ended(number) for number in numbers),
        ev.SweepEnded(state="COMPLETED", reason="done", best=0, time_s=START_S + 99),
    ]


def append_all(log: EventLog, batches: Iterator[list[ev.Event]]) -> list[ev.Event]:
    return [event for batch in batches for event in log.append(batch)]


def model_directory(path: Path, content: bytes = b"weights") -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(content)
    (path / "config.json").write_text("{}")
    return path
