"""A sweep as the desk would tell it: invented losses, halved by the real rule. For tests of what people see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import exp, inf, log

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.facts import BaseFacts, DataFacts, MachineFacts, TargetModule
from pharos.plan.halving import decide
from pharos.plan.hyperparameters import baseline_params
from pharos.plan.ledger import Ledger
from pharos.plan.metrics import EVAL_LOSS, place
from pharos.plan.result import result_json
from pharos.plan.sweep_plan import SweepPlan, plan_sweep
from pharos.spec.model import SweepSpec

DIVERGING = 5
BASE = BaseFacts(
    name="builtin:tiny",
    directory=None,
    architecture="LlamaForCausalLM",
    hidden_size=128,
    intermediate_size=344,
    num_hidden_layers=4,
    vocab_size=2048,
    max_position_embeddings=512,
    num_parameters=1_315_000,
    num_layer_parameters=198_000,
    targets=tuple(TargetModule(name=f"layers.{layer}.q_proj", d_in=128, d_out=128) for layer in range(4)),
    digest="base",
    tokenizer_digest="tokenizer",
)
DATA = DataFacts(
    num_train_rows=800,
    num_eval_rows=100,
    num_test_rows=200,
    mean_tokens=40.0,
    p95_tokens=60,
    max_tokens=80,
    mean_trained_tokens=10.0,
    num_long_rows=0,
    format="messages",
    template="chatml",
    digest="rows",
)
MACHINE = MachineFacts(num_cpus=2, memory_bytes=24 * 10**9)


def make_spec(*, num_trials: int = 12, seats_per_worker: int = 4) -> SweepSpec:
    return SweepSpec(
        name="quickstart",
        base="builtin:tiny",
        data={"train": "train.jsonl"},
        train={"num_train_epochs": 2},
        search={
            "num_trials": num_trials,
            "space": {
                "lora.r": {"ordered": [2, 4, 8, 16]},
                "optim.learning_rate": {"log_uniform": [1e-5, 1e-2]},
                "optim.adam_beta2": {"one_minus_log_uniform": [0.9, 0.9999]},
            },
        },
        pool={"workers": 2, "seats_per_worker": seats_per_worker},
    )


def make_plan(spec: SweepSpec) -> SweepPlan:
    return plan_sweep(spec, BASE, DATA, MACHINE)


def scripted_sweep(spec: SweepSpec, plan: SweepPlan, *, round_s: float = 5.0) -> Iterator[list[ev.Event]]:
    """A sweep as the desk would tell it, round by round: trials of invented losses, halved by the real rule."""
    trials = {
        number: trial_plan(
            spec,
            number,
            baseline_params(spec)
            if number == 0
            else {"lora.r": 2 ** (1 + number % 4), "optim.learning_rate": 1e-5 * 10 ** (number / 4)}
            | {"optim.adam_beta2": 1 - 0.1 * 10 ** (-number / 5)},
            DATA.num_train_rows,
        )
        for number in range(plan.num_trials)
    }
    seats: dict[int, int] = {}
    step = dict.fromkeys(trials, 0)
    best: dict[int, float | None] = dict.fromkeys(trials)
    history: dict[int, list[float]] = {rung: [] for rung in plan.rungs}
    queue, time_s, sequence, rounds = list(trials), 1000.0, 0, 0

    def told(*events: ev.Event) -> list[ev.Event]:
        nonlocal sequence
        numbered = [replace(event, time_s=time_s, sequence=sequence + i) for i, event in enumerate(events)]
        sequence += len(events)
        return numbered

    yield told(
        ev.SweepStarted(
            sweep=plan.sweep, spec={}, digests={}, versions={}, num_trials=plan.num_trials, metric="eval_loss"
        ),
        ev.PoolOpened(pool="pool-0", base_key=plan.base_key, num_seats=plan.num_seats, workers=2, attempt=0),
    )
    while queue or seats:
        seated: list[ev.Event] = []
        for seat in sorted(set(range(plan.num_seats)) - set(seats)):
            if queue:
                number = seats[seat] = queue.pop(0)
                seated.append(ev.TrialCreated(number=number, trial=trials[number].to_json()))
                seated.append(ev.TrialSeated(number=number, pool="pool-0", seat=seat, resumed_step=0))
        yield told(*seated)
        time_s, rounds = time_s + round_s, rounds + 1
        happened, ended = [], {}
        for number in seats.values():
            step[number] += plan.report_every
            fit = (log(trials[number].hyperparameters.learning_rate) + 6.5) ** 2 / 30
            score = 0.8 + fit + exp(-step[number] / 80)
            if number == DIVERGING and step[number] >= 50:
                ended[number] = ("DIVERGED", "gradient of step 31 is not finite")
                score = inf
            else:
                best[number] = score
            happened.append(
                ev.TrialReported(
                    number=number,
                    step=step[number],
                    clocks=step[number],
                    steps=({"step": step[number], "loss": score + 0.05, "num_tokens": 80 * plan.report_every},),
                    eval_metrics={"eval_loss": score},
                    best_metric=best[number],
                    best_step=step[number],
                    best_checkpoint=f"trials/{number:04d}/step-{step[number]:06d}",
                    checkpoint=f"trials/{number:04d}/step-{step[number]:06d}",
                )
            )
            if step[number] >= trials[number].num_steps:
                ended[number] = ("COMPLETED", "trained to its full length")
        for rung in plan.rungs:
            arrivals = {n: best[n] for n in seats.values() if step[n] == rung and n not in ended}
            earlier = sorted(place(EVAL_LOSS, score, None) for score in history[rung])
            for decision in decide(arrivals, earlier, reduction_factor=2, exempt=frozenset({0})):
                happened.append(
                    ev.RungDecided(
                        number=decision.number,
                        rung=rung,
                        score=arrivals[decision.number],
                        rank=decision.rank,
                        compared=decision.compared,
                        stopped=decision.stopped,
                        reason=decision.reason,
                    )
                )
                if decision.stopped:
                    ended[decision.number] = ("PRUNED", f"rung {rung}: {decision.reason}")
            history[rung] += arrivals.values()
        for number, (state, reason) in ended.items():
            happened.append(
                ev.TrialEnded(number=number, state=state, reason=reason, score=best[number], step=step[number])
            )
        happened.append(
            ev.RoundFinished(
                pool="pool-0",
                round=rounds,
                clocks=plan.report_every,
                live_seat_clocks=plan.report_every * len(seats),
                num_seats=plan.num_seats,
                num_tokens=2000 * len(seats),
                num_padded_tokens=4000 * len(seats),
                clocks_s=round_s * 0.8,
                evaluation_s=round_s * 0.1,
                checkpoint_s=0.0,
                exchange_s=round_s * 0.1,
            )
        )
        yield told(*happened)
        seats = {seat: number for seat, number in seats.items() if number not in ended}
    winner = min((score, number) for number, score in best.items() if score is not None)[1]
    yield told(
        ev.TestScored(number=-1, metrics={"test_loss": 2.9, "exact_match": 0.0}),
        *(
            ev.TestScored(
                number=n, metrics={"test_loss": 1.51 if n == 0 else 0.97, "exact_match": 0.715 - 0.04 * (n == 0)}
            )
            for n in sorted({0, winner})
        ),
        ev.ModelRegistered(
            number=winner, model="docker-assistant", version="3", alias="candidate", source="runs:/1/merged"
        ),
        ev.SweepEnded(
            state="COMPLETED", reason="all trials are done", best=winner, phases_s={"start": 14.0, "search": 61.0}
        ),
    )


def scripted_result(spec: SweepSpec, plan: SweepPlan) -> dict:
    return result_json(Ledger.of(event for batch in scripted_sweep(spec, plan) for event in batch), plan)
