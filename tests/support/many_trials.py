"""A long sweep as the desk would have written it, with invented scores: for what has to stay fast with many trials."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import log10

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.hyperparameters import baseline_params
from pharos.plan.trial import BASELINE
from pharos.spec.identity import spec_to_json
from pharos.spec.model import SweepSpec

NUM_SEATS = 8
NUM_ROUNDS = 8
ROUND_S = 20.0
START_S = 1_700_000_000.0


def many_trials_spec(num_trials: int, *, name: str = "many", num_steps: int = 200) -> SweepSpec:
    """Five searched fields, as the quickstart has."""
    return SweepSpec.model_validate(
        {
            "name": name,
            "base": "builtin:tiny",
            "data": {"train": "builtin:docker-commands"},
            "train": {"max_steps": num_steps},
            "search": {
                "num_trials": num_trials,
                "space": {
                    "lora.r": {"ordered": [4, 8, 16, 32]},
                    "lora.alpha_over_r": {"ordered": [1, 2, 4]},
                    "optim.learning_rate": {"log_uniform": [1e-4, 3e-2]},
                    "optim.adam_beta2": {"one_minus_log_uniform": [0.9, 0.9999]},
                    "optim.warmup_ratio": {"uniform": [0.0, 0.1]},
                },
            },
            "pool": {"workers": 2, "seats_per_worker": NUM_SEATS // 2},
        }
    )


def many_trials(
    spec: SweepSpec, *, num_rounds: int = NUM_ROUNDS, steps_told: int | None = None
) -> Iterator[list[ev.Event]]:
    """The sweep's events in the segments that the desk writes: a trial's creation, then seats, then rounds of them all.

    Every trial runs its rounds in a seat of one pool. steps_told: of the steps of a round, how many its reports
    hold; none: all.
    """
    assert spec.search is not None
    assert spec.train.max_steps is not None
    steps_of_round = spec.train.max_steps // num_rounds
    draw = random.Random(0)
    time_s = START_S
    yield [
        ev.SweepStarted(
            sweep=spec.name,
            spec=spec_to_json(spec),
            digests={"spec": "5bec", "data": "da7a"},
            versions={"python": "3.11"},
            num_trials=spec.search.num_trials,
            metric="eval_loss",
            time_s=time_s,
        ),
        ev.PoolOpened(pool="pool-0", base_key="key", num_seats=NUM_SEATS, workers=2, attempt=0, time_s=time_s),
    ]
    for first in range(0, spec.search.num_trials, NUM_SEATS):
        numbers = range(first, min(first + NUM_SEATS, spec.search.num_trials))
        scores = {}
        for number in numbers:
            params = _params(spec, number, draw)
            plan = trial_plan(spec, number, params, num_train_items=1000)
            scores[number] = 0.5 + (log10(plan.hyperparameters.learning_rate) + 2) ** 2 + 0.05 * draw.random()
            yield [ev.TrialCreated(number=number, trial=plan.to_json(), time_s=time_s)]
        yield [
            ev.TrialSeated(number=number, pool="pool-0", seat=number - first, resumed_step=0, time_s=time_s)
            for number in numbers
        ]
        for finished in range(1, num_rounds + 1):
            time_s += ROUND_S
            step = finished * steps_of_round
            told = range(step - (steps_told or steps_of_round) + 1, step + 1)
            batch: list[ev.Event] = [
                _reported(number, step, told, scores[number] + 1 - finished / num_rounds, time_s) for number in numbers
            ]
            if finished == num_rounds:
                batch += [_ended(number, step, scores[number], time_s) for number in numbers]
            yield [*batch, _round(first + finished, steps_of_round, len(numbers), time_s)]
    yield [ev.SweepEnded(state="COMPLETED", reason="all trials are done", best=None, time_s=time_s)]


def _params(spec: SweepSpec, number: int, draw: random.Random) -> dict[str, int | float | bool | str]:
    if number == BASELINE:
        return baseline_params(spec)
    return {
        "lora.r": draw.choice([4, 8, 16, 32]),
        "lora.alpha_over_r": draw.choice([1, 2, 4]),
        "optim.learning_rate": 10 ** draw.uniform(-4, -1.6),
        "optim.adam_beta2": 1 - 10 ** draw.uniform(-4, -1),
        "optim.warmup_ratio": draw.uniform(0.0, 0.1),
    }


def _reported(number: int, step: int, told: range, score: float, time_s: float) -> ev.TrialReported:
    steps = tuple(
        {
            "step": one,
            "time_s": time_s + one / 64,
            "loss": score + 0.1 + 1 / (one + number + 3),
            "grad_norm": 1 / (one + 2.7),
            "learning_rate": 2e-4 / (one + 1.3),
            "epoch": one / 97,
            "num_tokens": 170 + one % 7,
        }
        for one in told
    )
    checkpoint = f"pharos-results/many/trials/{number:04d}/step-{step:06d}"
    return ev.TrialReported(
        number=number,
        step=step,
        clocks=step,
        steps=steps,
        eval_metrics={"eval_loss": score, "eval_token_accuracy": 1 / (1 + score)},
        best_metric=score,
        best_step=step,
        best_checkpoint=checkpoint,
        checkpoint=checkpoint,
        time_s=time_s,
    )


def _ended(number: int, step: int, score: float, time_s: float) -> ev.TrialEnded:
    reason = "trained to its full length"
    return ev.TrialEnded(number=number, state="COMPLETED", reason=reason, score=score, step=step, time_s=time_s)


def _round(number: int, clocks: int, seats: int, time_s: float) -> ev.RoundFinished:
    return ev.RoundFinished(
        pool="pool-0",
        round=number,
        clocks=clocks,
        live_seat_clocks=clocks * seats,
        num_seats=NUM_SEATS,
        num_tokens=4000 * seats,
        num_padded_tokens=0,
        clocks_s=ROUND_S * 0.8,
        evaluation_s=ROUND_S * 0.1,
        checkpoint_s=0.0,
        exchange_s=ROUND_S * 0.1,
        time_s=time_s,
    )
