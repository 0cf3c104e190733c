"""The desk: the one actor of a sweep that seats trials, receives reports and says who goes on.

A plain asyncio class, so that it runs in a test as it runs under Ray. It alone writes the event log; whatever it knows
is a fold over those events. It decides nothing by itself: the rules are the pure functions of plan/.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any, Protocol

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.exchange import Admit, Evict, Orders, RoundReport, Score, ScoreReport, SeatReport
from pharos.plan.halving import decide
from pharos.plan.hyperparameters import Params
from pharos.plan.ledger import Ledger
from pharos.plan.metrics import EVAL_LOSS, ranking_metric
from pharos.plan.seating import WaitingTrial, free_seats, next_waiting
from pharos.plan.sweep_plan import SweepPlan
from pharos.plan.trial import BASELINE, TrialPlan, TrialState, repeat_of
from pharos.spec.model import SweepSpec
from pharos.sweep.reports import ended, finished, reported, result_for_tune, scored
from pharos.track.event_log import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a round waits for the search. refill_s: to fill free seats, while other seats are ready to go on.

    idle_s: how long an empty pool waits before it is sent round once, so that no collective of its ranks times out.
    """

    refill_s: float = 2.0
    idle_s: float = 30.0


@dataclass(slots=True)
class _Pool:
    """A pool as the desk sees it: trial number by taken seat. Orders for an earlier `attempt` of it are void."""

    base_key: str
    workers: int
    num_seats: int
    attempt: int
    seats: dict[int, int] = field(default_factory=dict)

    @property
    def free(self) -> list[int]:
        """The free seats, in the order in which to fill them."""
        return free_seats(self.seats, num_seats=self.num_seats, seats_per_worker=-(-self.num_seats // self.workers))


class EventListener(Protocol):
    """Hears every event in the desk's own process, as it is written. It must be quick, and raise nothing."""

    def begin(self, past: Sequence[ev.Event]) -> None:
        """What the log held when this session began."""

    def take(self, events: Sequence[ev.Event]) -> None: ...


class Desk:
    """Create it, `open` it once, then pools attach and exchange while proxies admit trials and wait for reports."""

    def __init__(
        self,
        spec: SweepSpec,
        plan: SweepPlan,
        log: EventLog,
        *,
        patience: Patience = Patience(),
        now: Callable[[], float] = time.time,
        listener: EventListener | None = None,
    ) -> None:
        self._spec, self._plan, self._log, self._patience, self._now = spec, plan, log, patience, now
        self._events: list[ev.Event] = list(log.read())
        self._ledger = Ledger.of(self._events)
        self._pools: dict[str, _Pool] = {}
        self._waiting: dict[int, WaitingTrial] = {}
        self._mailboxes: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._admitted: set[int] = set()
        self._finished_before = sum(trial.state.is_final for trial in self._ledger.trials.values())
        self._stops: dict[int, str] = {}
        self._scores_wanted: list[Score] = []
        self._score_reports: list[ScoreReport] = []
        self._closing: str | None = None
        self._failure: str | None = None
        self._changed = asyncio.Condition()
        self._listener = listener
        if listener is not None:
            listener.begin(self._events)

    # What the driver asks.

    async def open(
        self, *, digests: Mapping[str, str], versions: Mapping[str, str], spec_json: dict[str, Any], root: str = ""
    ) -> None:
        """Write the first event of this session."""
        self._emit(
            ev.SweepStarted(
                sweep=self._spec.name,
                spec=spec_json,
                digests=dict(digests),
                versions=dict(versions),
                num_trials=self._plan.num_trials,
                metric=self._metric,
                resumed=bool(self._events),
                root=root,
            )
        )

    async def record(self, event: ev.Event) -> None:
        """Write an event of the driver's own: a registration, the end of the sweep."""
        self._emit(event)

    async def events_since(self, sequence: int) -> list[ev.Event]:
        """The events from `sequence` on, in order."""
        return self._events[sequence:]

    async def score(self, wanted: Sequence[Score]) -> list[ScoreReport]:
        """Have the pool evaluate finished trials' adapters; returns when all are back."""
        self._score_reports = []
        self._scores_wanted = list(wanted)
        await self._notify()
        await self._until(lambda: len(self._score_reports) == len(wanted) or self._failure is not None)
        return self._score_reports

    async def repeat(self, trials: Sequence[TrialPlan]) -> None:
        """Train repeats, in full and without halving; returns when all are final. Those that are already, stay."""
        new = [trial for trial in trials if trial.number not in self._ledger.repeats]
        self._emit(*(ev.TrialCreated(number=trial.number, trial=trial.to_json()) for trial in new))
        records = [self._ledger.repeats[trial.number] for trial in trials]
        for record in records:
            if not record.state.is_final:
                self._wait(record.number, self._plan.base_key)
        await self._notify()
        await self._until(lambda: all(record.state.is_final for record in records) or self._failure is not None)

    async def stop_trial(self, number: int, reason: str) -> None:
        """Inbox: stop one trial at the end of its round."""
        self._stops[number] = reason
        await self._notify()

    async def stop_all(self, reason: str) -> None:
        """Inbox: stop every trial that still runs at the end of its round; their states become STOPPED."""
        for trial in self._ledger.unfinished():
            self._stops[trial.number] = reason
        await self._notify()

    async def close(self, reason: str) -> None:
        """Send every pool home at its next exchange."""
        self._closing = reason
        await self._notify()

    async def failure(self) -> str | None:
        """Why the sweep cannot go on, if so."""
        return self._failure

    # What the proxies of Ray Tune ask.

    async def admit(self, number: int, params: Params) -> None:
        """Queue a trial. Asking twice changes nothing: a proxy that was restarted finds its trial where it is."""
        if number in self._admitted:
            return
        self._admitted.add(number)
        self._mailboxes[number] = asyncio.Queue()
        if number not in self._ledger.trials:
            trial = trial_plan(self._spec, number, params, self._plan.data.num_train_items)
            self._emit(ev.TrialCreated(number=number, trial=trial.to_json()))
        if self._failure is not None:
            self._let_go(number)
        else:
            self._wait(number, self._plan.base_key)
        await self._notify()

    async def next_report(self, number: int) -> dict[str, Any]:
        """The trial's next result, as Ray Tune wants it; the last has done=True and the final state."""
        return await self._mailboxes[number].get()

    # What the pools ask.

    async def attach(self, pool: str, base_key: str, workers: int, num_seats: int) -> int:
        """A pool's workers are up. If the pool was here before, it died: its trials go back to the queue."""
        attempt = 0
        if (before := self._pools.get(pool)) is not None:
            attempt = before.attempt + 1
            self._give_back(pool, before, "its workers died and were started again")
        self._pools[pool] = _Pool(base_key, workers, num_seats, attempt)
        self._emit(ev.PoolOpened(pool=pool, base_key=base_key, num_seats=num_seats, workers=workers, attempt=attempt))
        await self._notify()
        return attempt

    async def pool_failed(self, pool: str, reason: str) -> None:
        """A pool is gone for good. Its trials stay unfinished in the log, for a resume; their proxies are let go."""
        self._failure = reason
        if (before := self._pools.pop(pool, None)) is not None:
            self._give_back(pool, before, reason)
        for number in self._waiting:
            self._let_go(number)
        self._waiting.clear()
        await self._notify()

    async def exchange(self, attempt: int, report: RoundReport) -> Orders:
        """The end of a round: take its reports in, decide, and say what every seat does next."""
        pool = self._pools[report.pool]
        if pool.attempt != attempt:
            return Orders(close=True)
        evicted = self._take_in(pool, report)
        await self._notify()
        await self._until(
            lambda: pool.attempt != attempt or self._can_go_on(pool),
            timeout_s=self._patience.refill_s if pool.seats else self._patience.idle_s,
        )
        if pool.attempt != attempt:
            return Orders(close=True)
        return self._orders(report.pool, pool, evicted)

    # A round, step by step.

    def _take_in(self, pool: _Pool, report: RoundReport) -> list[Evict]:
        """Everything that a round's report causes, written as one segment of the log, then told to the proxies."""
        known = [seat for seat in report.seats if pool.seats.get(seat.seat) == seat.number]
        batch: list[ev.Event] = [reported(seat) for seat in known]
        decided = self._decide_rungs(known)
        batch += decided
        ends = {seat.number: end for seat in known if (end := self._end_of(seat, decided)) is not None}
        for seat in known:
            if seat.number in ends:
                state, reason = ends[seat.number]
                batch.append(ended(seat, state, reason))
        batch += [scored(score) for score in report.scores if score.split == "test"]
        if report.clocks:
            batch.append(finished(report, pool.num_seats, self._plan.base))
        self._emit(*batch)
        for seat in known:
            self._mail(seat.number)
        self._score_reports += report.scores
        evicted = [Evict(seat=seat.seat, number=seat.number) for seat in known if seat.number in ends]
        for eviction in evicted:
            del pool.seats[eviction.seat]
        return evicted

    def _decide_rungs(self, seats: Sequence[SeatReport]) -> list[ev.RungDecided]:
        """Halving over all trials that reached a rung in this round, together."""
        decided: list[ev.RungDecided] = []
        for rung in self._plan.rungs:
            trials = self._ledger.trials
            arrivals = {
                seat.number: nan if seat.best_metric is None else seat.best_metric
                for seat in seats
                if seat.clocks == rung and _may_be_stopped(seat) and rung not in trials[seat.number].rungs
            }
            losses = {seat.number: seat.eval_metrics.get(EVAL_LOSS, nan) for seat in seats}
            before = [trial for trial in trials.values() if rung in trial.rungs]
            decisions = decide(
                arrivals,
                [trial.rungs[rung] for trial in before],
                losses=losses,
                history_losses=[trial.rung_losses[rung] for trial in before],
                rung=rung,
                metric=self._metric,
                reduction_factor=self._plan.reduction_factor,
                exempt=frozenset({BASELINE}),
            )
            decided += [
                ev.RungDecided(
                    number=decision.number,
                    rung=rung,
                    score=arrivals[decision.number],
                    rank=decision.rank,
                    compared=decision.compared,
                    stopped=decision.stopped,
                    reason=decision.reason,
                    eval_loss=losses[decision.number],
                )
                for decision in decisions
            ]
        return decided

    def _end_of(self, seat: SeatReport, decided: Sequence[ev.RungDecided]) -> tuple[TrialState, str] | None:
        """The final state of a seat's trial, if this round ended it."""
        if seat.diverged is not None:
            return TrialState.DIVERGED, seat.diverged
        if seat.done:
            return TrialState.COMPLETED, "trained to its full length"
        if seat.number in self._stops:
            return TrialState.STOPPED, self._stops.pop(seat.number)
        stopped = next((d for d in decided if d.number == seat.number and d.stopped), None)
        return None if stopped is None else (TrialState.PRUNED, f"rung {stopped.rung}: {stopped.reason}")

    def _can_go_on(self, pool: _Pool) -> bool:
        """Whether waiting longer would change nothing: every free seat can be filled, or nobody else will come."""
        if self._closing is not None or self._scores_wanted:
            return True
        waiting = sum(trial.base_key == pool.base_key for trial in self._waiting.values())
        expected = self._plan.num_trials - self._finished_before - len(self._admitted)
        if waiting >= len(pool.free):
            return True
        return expected <= 0 and bool(pool.seats or waiting)

    def _orders(self, name: str, pool: _Pool, evicted: list[Evict]) -> Orders:
        """Fill the free seats, hand out what is to be scored, or close."""
        if self._closing is not None:
            self._emit(ev.PoolClosed(pool=name))
            return Orders(evict=tuple(evicted), close=True)
        score, self._scores_wanted = tuple(self._scores_wanted), []
        admitted: list[Admit] = []
        seated: list[ev.Event] = []
        for seat in pool.free:
            number = self._next_waiting(pool.base_key)
            if number is None:
                break
            record = self._ledger.record(number)
            pool.seats[seat] = number
            admitted.append(Admit(seat=seat, trial=record.plan, checkpoint=record.checkpoint))
            step = record.step if record.checkpoint else 0
            seated.append(ev.TrialSeated(number=number, pool=name, seat=seat, resumed_step=step))
        self._emit(*seated)
        return Orders(evict=tuple(evicted), admit=tuple(admitted), score=score)

    def _next_waiting(self, base_key: str) -> int | None:
        """The next trial for a pool; one that was stopped while it waited ends here."""
        while (trial := next_waiting(self._waiting.values(), base_key=base_key)) is not None:
            del self._waiting[trial.number]
            if trial.number not in self._stops:
                return trial.number
            self._end(trial.number, TrialState.STOPPED, self._stops.pop(trial.number))
        return None

    # Small things.

    @property
    def _metric(self) -> str:
        return ranking_metric(self._spec)

    def _give_back(self, name: str, pool: _Pool, reason: str) -> None:
        """The trials of a lost pool wait again, and resume where their checkpoints are."""
        lost = sorted(pool.seats.values())
        self._emit(ev.PoolLost(pool=name, reason=reason, trials=tuple(lost)))
        pool.seats.clear()
        for number in lost:
            self._wait(number, pool.base_key)

    def _wait(self, number: int, base_key: str) -> None:
        resumed = self._ledger.record(number).checkpoint is not None
        self._waiting[number] = WaitingTrial(number=number, base_key=base_key, resumed=resumed)

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        record = self._ledger.record(number)
        self._emit(ev.TrialEnded(number=number, state=state, reason=reason, score=record.score, step=record.step))
        self._mail(number)

    def _mail(self, number: int) -> None:
        """Tell a trial's proxy how it stands; a repeat has none."""
        if repeat_of(number) is None:
            self._mailboxes[number].put_nowait(result_for_tune(self._ledger.trials[number], self._metric))

    def _let_go(self, number: int) -> None:
        """Tell a proxy to end although its trial has not: nobody will train it in this session."""
        if repeat_of(number) is not None:
            return
        result = result_for_tune(self._ledger.trials[number], self._metric)
        self._mailboxes[number].put_nowait(result | {"state": str(TrialState.FAILED), "done": True})

    def _emit(self, *events: ev.Event) -> None:
        if not events:
            return
        now = self._now()
        written = self._log.append([replace(event, time_s=now) for event in events])
        for event in written:
            self._events.append(event)
            self._ledger.apply(event)
        if self._listener is not None:
            self._listener.take(written)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, condition: Callable[[], bool], *, timeout_s: float | None = None) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(condition), timeout_s)
            except TimeoutError:
                return


def _may_be_stopped(seat: SeatReport) -> bool:
    """Whether halving has a say: not over trials that end anyway, nor over repeats."""
    return not seat.done and seat.diverged is None and repeat_of(seat.number) is None
