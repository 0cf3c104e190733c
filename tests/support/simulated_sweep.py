"""The events of sweeps that nobody trained: any number of trials through a few seats, with halving as the desk does it.

For what reads a finished log and must hold for a thousand trials as for one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import exp, log
from typing import Any

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.halving import decide
from pharos.plan.hyperparameters import baseline_params
from pharos.plan.metrics import EVAL_LOSS, place
from pharos.plan.trial import BASELINE, TrialPlan
from pharos.spec.identity import spec_to_json
from pharos.spec.model import SweepSpec

START_S = 1_790_000_000.0
SPACE = {
    "lora.r": {"ordered": [2, 4, 8, 16, 32]},
    "optim.lr_scheduler_type": {"choice": ["linear", "cosine"]},
    "optim.learning_rate": {"log_uniform": [1e-5, 1e-1]},
    "optim.adam_beta2": {"one_minus_log_uniform": [0.9, 0.9999]},
    "optim.warmup_ratio": {"uniform": [0.0, 0.2]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """What goes wrong. diverging: numbers of trials that do. lost_at: rounds at which the pool dies. stop_at: the round
    after which the log ends, as after a kill. resumed_at: rounds before which a session ends and another begins."""

    diverging: frozenset[int] = frozenset()
    lost_at: frozenset[int] = frozenset()
    resumed_at: frozenset[int] = frozenset()
    stop_at: int | None = None


def simulated_spec(num_trials: int, **sections: Any) -> SweepSpec:
    fields: dict[str, Any] = {
        "name": "simulated",
        "base": "builtin:tiny",
        "data": {"train": "builtin:docker-commands", "max_length": 64},
        "train": {"max_steps": 160, "batch_size": 8, "micro_batch_size": 8},
        "search": {"num_trials": num_trials, "halving": {"reduction_factor": 3}, "space": SPACE},
        "pool": {"workers": 2, "seats_per_worker": 4},
        "register": {"model": "assistant"},
    }
    return SweepSpec.model_validate(fields | sections)


def simulated_sweep(
    spec: SweepSpec, *, report_every: int = 20, rungs: Sequence[int] = (20, 60), happening: Happening = Happening()
) -> list[ev.Event]:
    """The whole log, numbered. The learning rate decides how good a trial gets; 3e-3 is best."""
    return _Simulation(spec, report_every, tuple(rungs), happening).run()


@dataclass(slots=True)
class _Simulation:
    spec: SweepSpec
    report_every: int
    rungs: tuple[int, ...]
    happening: Happening
    now_s: float = START_S
    happened: list[ev.Event] = field(default_factory=list)
    history: dict[int, list[float]] = field(default_factory=dict)
    plans: dict[int, TrialPlan] = field(default_factory=dict)
    progress: dict[int, tuple[int, float | None]] = field(default_factory=dict)

    def run(self) -> list[ev.Event]:
        num_trials = self.spec.search.num_trials if self.spec.search else 1
        self._start(resumed=False)
        waiting, seats, round_number = list(range(num_trials)), dict[int, int](), 0
        num_seats = self.spec.pool.workers * self.spec.pool.seats_per_worker
        for number in waiting:
            self._emit(ev.TrialCreated(number=number, trial=self._plan(number).to_json()))
        while waiting or seats:
            round_number += 1
            self._interrupt(round_number, seats, waiting)
            self._seat(seats, waiting, num_seats)
            self._round(round_number, seats, num_seats)
            if round_number == self.happening.stop_at:
                return self._numbered()
        self._finish()
        return self._numbered()

    def _start(self, *, resumed: bool) -> None:
        spec = spec_to_json(self.spec)
        num_trials = self.spec.search.num_trials if self.spec.search else 1
        digests, versions = {"spec": "5bec", "data": "da7a", "base": "ba5e"}, {"python": "3.11.9", "torch": "2.13.0"}
        self._emit(
            ev.SweepStarted(
                sweep=self.spec.name,
                spec=spec,
                digests=digests,
                versions=versions,
                num_trials=num_trials,
                metric="eval_loss",
                resumed=resumed,
            ),
        )
        workers, seats = self.spec.pool.workers, self.spec.pool.workers * self.spec.pool.seats_per_worker
        self._emit(ev.PoolOpened(pool="pool-0", base_key="k", num_seats=seats, workers=workers, attempt=0), after_s=3)

    def _interrupt(self, round_number: int, seats: dict[int, int], waiting: list[int]) -> None:
        if round_number in self.happening.lost_at:
            self._emit(ev.PoolLost(pool="pool-0", reason="a worker died", trials=tuple(seats.values())))
        if round_number in self.happening.resumed_at:
            self.now_s += 36_000
            self._start(resumed=True)
        if round_number in self.happening.lost_at | self.happening.resumed_at:
            waiting[:0] = seats.values()
            seats.clear()

    def _seat(self, seats: dict[int, int], waiting: list[int], num_seats: int) -> None:
        for seat in range(num_seats):
            if seat not in seats and waiting:
                seats[seat] = waiting.pop(0)
                step = self.progress.get(seats[seat], (0, None))[0]
                self._emit(ev.TrialSeated(number=seats[seat], pool="pool-0", seat=seat, resumed_step=step))

    def _round(self, round_number: int, seats: dict[int, int], num_seats: int) -> None:
        self.now_s += 2
        for number in seats.values():
            self._report(number)
        stopped = {decision.number: decision for decision in self._decide(seats)}
        for seat, number in list(seats.items()):
            step, best = self.progress[number]
            if number in self.happening.diverging:
                end = ("DIVERGED", "the loss is not finite")
            elif step >= self._plan(number).num_steps:
                end = ("COMPLETED", "trained to its full length")
            elif number in stopped:
                end = ("PRUNED", f"rung {stopped[number].rung}: {stopped[number].reason}")
            else:
                continue
            self._emit(ev.TrialEnded(number=number, state=end[0], reason=end[1], score=best, step=step))
            del seats[seat]
        self._emit(
            ev.RoundFinished(
                pool="pool-0",
                round=round_number,
                clocks=self.report_every,
                live_seat_clocks=self.report_every * len(seats),
                num_seats=num_seats,
                num_tokens=600 * len(seats),
                num_padded_tokens=800 * len(seats),
                clocks_s=1.5,
                evaluation_s=0.3,
                checkpoint_s=0.1,
                exchange_s=0.1,
            )
        )

    def _report(self, number: int) -> None:
        begun, best = self.progress.get(number, (0, None))
        step = begun + self.report_every
        diverges = number in self.happening.diverging
        score = float("inf") if diverges else self._loss(number, step)
        best = best if diverges else min(score, score if best is None else best)
        self.progress[number] = (step, best)
        self._emit(
            ev.TrialReported(
                number=number,
                step=step,
                clocks=step,
                steps=tuple(
                    {
                        "step": each,
                        "time_s": self.now_s,
                        "loss": self._loss(number, each) + 0.05,
                        "grad_norm": 1.0,
                        "learning_rate": 1e-3,
                        "epoch": 0.1,
                        "num_tokens": 30,
                    }
                    for each in range(begun + 1, step + 1)
                ),
                eval_metrics={"eval_loss": score},
                best_metric=best,
                best_step=None if best is None else step,
                best_checkpoint=None if best is None else f"trials/{number:04d}/step-{step:06d}",
                checkpoint=f"trials/{number:04d}/step-{step:06d}",
            )
        )

    def _decide(self, seats: dict[int, int]) -> list[ev.RungDecided]:
        stopped = []
        for rung in self.rungs:
            arrivals = {
                number: self.progress[number][1] or 9.0
                for number in seats.values()
                if self.progress[number][0] == rung and number not in self.happening.diverging
            }
            history = self.history.setdefault(rung, [])
            earlier = sorted(place(EVAL_LOSS, score, None) for score in history)
            for decision in decide(arrivals, earlier, reduction_factor=3, exempt=frozenset({BASELINE}), rung=rung):
                made = ev.RungDecided(
                    number=decision.number,
                    rung=rung,
                    score=arrivals[decision.number],
                    rank=decision.rank,
                    compared=decision.compared,
                    stopped=decision.stopped,
                    reason=decision.reason,
                )
                self._emit(made)
                stopped += [made] if made.stopped else []
            history.extend(arrivals.values())
        return stopped

    def _finish(self) -> None:
        scored = [(best, number) for number, (_, best) in self.progress.items() if best is not None]
        best = min(scored)[1] if scored else None
        if best is not None:
            for number in sorted({-1, BASELINE, best}):
                self._emit(ev.TestScored(number=number, metrics={"test_loss": 5.0 if number < 0 else 0.9}))
            self._emit(
                ev.ModelRegistered(number=best, model="assistant", version="3", alias="candidate", source="merged")
            )
        self._emit(ev.SweepEnded(state="COMPLETED", reason="all trials are done", best=best))

    def _plan(self, number: int) -> TrialPlan:
        if number not in self.plans:
            self.plans[number] = self._drawn(number)
        return self.plans[number]

    def _drawn(self, number: int) -> TrialPlan:
        params = baseline_params(self.spec)
        if number != BASELINE:
            chosen = random.Random(number)
            params = {
                "lora.r": chosen.choice([2, 4, 8, 16, 32]),
                "optim.lr_scheduler_type": chosen.choice(["linear", "cosine"]),
                "optim.learning_rate": exp(chosen.uniform(log(1e-5), log(1e-1))),
                "optim.adam_beta2": 1 - exp(chosen.uniform(log(1e-4), log(0.1))),
                "optim.warmup_ratio": chosen.uniform(0.0, 0.2),
            }
        return trial_plan(self.spec, number, params, 1000)

    def _loss(self, number: int, step: int) -> float:
        rate = self._plan(number).hyperparameters.learning_rate
        floor = 0.4 + 0.12 * (log(rate) - log(3e-3)) ** 2 + random.Random(number).uniform(0, 0.1)
        return floor + 2.5 * exp(-step / 50)

    def _emit(self, event: ev.Event, *, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.happened.append(replace(event, time_s=self.now_s))

    def _numbered(self) -> list[ev.Event]:
        return [replace(event, sequence=index) for index, event in enumerate(self.happened)]
