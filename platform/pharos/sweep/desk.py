"""The desk: the one actor of a sweep that seats trials, receives reports and says who goes on.

A plain asyncio class, so that it runs in a test as it runs under Ray. It alone writes the event log; whatever it knows
is a fold over those events, so that one that was lost is started again from them and goes on with the pools that there
are. It decides nothing by itself: the rules are the pure functions of plan/ and decisions.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.exchange import Admit, Evict, Orders, RoundReport, Score, ScoreReport, SeatReport
from pharos.plan.hyperparameters import Params
from pharos.plan.ledger import Ledger
from pharos.plan.metrics import ranking_metric
from pharos.plan.pools import pools_wanted
from pharos.plan.seating import WaitingTrial, next_waiting
from pharos.plan.sweep_plan import SweepPlan
from pharos.plan.trial import TrialPlan, TrialState
from pharos.spec.model import SweepSpec
from pharos.sweep.decisions import end_of, rungs_decided
from pharos.sweep.mailboxes import Mailboxes
from pharos.sweep.pool_board import OpenPool, PoolBoard, PoolOrders
from pharos.sweep.reports import ended, finished, reported, scored
from pharos.sweep.scoring import Scoring
from pharos.track.event_log import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a round waits for the search. refill_s: to fill free seats, while other seats are ready to go on.

    idle_s: how long an empty pool waits before it is sent round once, so that no collective of its ranks times out.
    """

    refill_s: float = 2.0
    idle_s: float = 30.0


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
        restarted: bool = False,
    ) -> None:
        """restarted: an earlier desk of this session was lost, and its pools may still be there."""
        self._spec, self._plan, self._log, self._patience, self._now = spec, plan, log, patience, now
        self._events: list[ev.Event] = list(log.read())
        self._ledger = Ledger.of(self._events)
        self._board = PoolBoard(max_pools=spec.pool.count.max, max_restarts=spec.pool.max_restarts)
        self._waiting: dict[int, WaitingTrial] = {}
        self._mailboxes = Mailboxes(self._ledger, self._metric)
        self._known = {trial.number for trial in self._ledger.trials.values() if trial.state.is_final}
        self._stops: dict[int, str] = {}
        self._scoring = Scoring()
        self._sends_home: str | None = None
        self._failure: str | None = None
        self._places: dict[str, int] = {}
        self._draining: frozenset[str] = frozenset()
        self._changed = asyncio.Condition()
        self._listener = listener
        if listener is not None:
            listener.begin(self._events)
        if restarted:
            self._find_pools()

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
        self._scoring.ask(wanted)
        await self._notify()
        await self._until(lambda: self._scoring.result is not None or self._failure is not None)
        return self._scoring.result or []

    async def repeat(self, trials: Sequence[TrialPlan]) -> None:
        """Train repeats, in full and without halving; returns when all are final. Those that are already, stay."""
        new = [trial for trial in trials if trial.number not in self._ledger.repeats]
        self._emit(*(ev.TrialCreated(number=trial.number, trial=trial.to_json()) for trial in new))
        records = [self._ledger.repeats[trial.number] for trial in trials]
        for record in records:
            if not record.state.is_final and not self._board.seats_trial(record.number):
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

    async def failure(self) -> str | None:
        """Why the sweep cannot go on, if so."""
        return self._failure

    # What the keeper of the pools asks.

    async def staffing(self, *, places: Mapping[str, int], draining: Mapping[str, float]) -> PoolOrders:
        """The pools to start and to take back.

        places: of each node that is alive, how many workers have room there; draining: nodes that are about to go.

        Pools on a node that is drained are sent home in the middle of their round.
        """
        self._draining = frozenset(draining)
        self._places = {node: room for node, room in places.items() if node not in draining}
        for name, lost in self._board.on_nodes(draining).items():
            self._board.open[name].leaving = f"node {', '.join(node[:8] for node in lost)} is being drained"
        orders = self._board.staffing(self._pools_wanted())
        self._emit(*(ev.PoolRequested(pool=name, avoided=orders.avoided) for name in orders.open))
        await self._notify()
        return orders

    async def send_home(self, reason: str, *, at_once: bool = False) -> None:
        """Open no pool again, and close each at its next exchange. at_once: in the middle of its round.

        Trials that still sit in them are saved and wait for another session. The keeper says it again with every look,
        for a desk that was started again does not know of it.
        """
        self._sends_home = reason
        for pool in self._board.open.values() if at_once else ():
            pool.leaving = reason
        await self._notify()

    async def pool_ended(self, name: str, failure: str | None, ranks: Sequence[int] = ()) -> None:
        """The launcher of a pool has ended. failure: why, where nobody had sent it home; ranks: that failed first.

        Its trials wait again, and resume where their checkpoints are. Where no pool can be kept alive, the proxies are
        let go; the trials stay unfinished in the log, for a resume.
        """
        pool = self._board.open.get(name)
        was_sent_home = name in self._board.going
        self._board.ended(name)
        if failure is not None and not was_sent_home:
            nodes = () if pool is None else pool.nodes_of(ranks)
            self._give_back(name, pool, failure, nodes)
            if pool is None or not self._draining & set(pool.nodes):
                worn = self._board.failed(name, failure, nodes, places=self._places, workers=self._plan.num_workers)
                for node in worn:
                    failures = self._board.node_failures[node]
                    self._emit(ev.NodeAvoided(node=node, failures=failures, reason=failure))
            self._failure = self._board.hopeless()
            if self._failure is not None:
                for number in self._waiting:
                    self._mailboxes.let_go(number)
                self._waiting.clear()
        await self._notify()

    async def num_seats(self) -> int:
        """Seats of all pools that are up; those of one where none is yet, since it will come."""
        return max(self._plan.num_seats, sum(pool.num_seats for pool in self._board.open.values()))

    # What the proxies of Ray Tune ask.

    async def admit(self, number: int, params: Params) -> None:
        """Queue a trial. Asking twice changes nothing: a proxy that was restarted finds its trial where it is."""
        if number in self._mailboxes:
            return
        self._mailboxes.open(number)
        self._known.add(number)
        if number not in self._ledger.trials:
            trial = trial_plan(self._spec, number, params, self._plan.data.num_train_items)
            self._emit(ev.TrialCreated(number=number, trial=trial.to_json()))
        if self._ledger.trials[number].state.is_final:
            self._mailboxes.tell(number)
        elif self._failure is not None:
            self._mailboxes.let_go(number)
        elif not self._board.seats_trial(number):
            self._wait(number, self._plan.base_key)
        await self._notify()

    async def next_report(self, number: int) -> dict[str, Any]:
        """The trial's next result, as Ray Tune wants it; the last has done=True and the final state."""
        if number not in self._mailboxes:  # a desk that was started again, and is asked once more
            await self.admit(number, self._ledger.trials[number].plan.params)
        return await self._mailboxes.next(number)

    # What the pools ask.

    async def attach(self, name: str, base_key: str, workers: int, num_seats: int, nodes: tuple[str, ...] = ()) -> int:
        """A pool's workers are up. nodes: of each rank. Returns how often a pool of this name was up before.

        If it was here until now, it died: its trials go back to the queue.
        """
        attempt = self._board.attempts[name]
        if (before := self._board.open.get(name)) is not None:
            self._give_back(name, before, "its workers died and were started again")
        self._board.opened(name, OpenPool(base_key, workers, num_seats, attempt, nodes))
        self._emit(
            ev.PoolOpened(
                pool=name, base_key=base_key, num_seats=num_seats, workers=workers, attempt=attempt, nodes=nodes
            )
        )
        await self._notify()
        return attempt

    async def wanted_back(self, name: str, attempt: int) -> None:
        """Returns when a pool is to end its round at once, or is none of the desk's any more."""
        pool = self._board.open.get(name)
        if pool is not None and pool.attempt == attempt:
            await self._until(lambda: pool.leaving is not None or self._is_gone(name, pool))

    async def exchange(self, attempt: int, report: RoundReport) -> Orders:
        """The end of a round: take its reports in, decide, and say what every seat does next.

        Asked again with the same report, by a pool that got no answer, it gives the orders that are still to be obeyed.
        """
        pool = self._board.open.get(report.pool)
        if pool is None or pool.attempt != attempt:
            return Orders(close=True)
        self._take_in(pool, report)
        await self._notify()
        await self._until(
            lambda: self._is_gone(report.pool, pool) or self._can_go_on(report.pool, pool),
            timeout_s=self._patience.refill_s if pool.seats else self._patience.idle_s,
        )
        if self._is_gone(report.pool, pool):
            return Orders(close=True)
        return self._orders(report, pool)

    # A round, step by step.

    def _take_in(self, pool: OpenPool, report: RoundReport) -> None:
        """Everything that a round's report causes, written as one segment of the log, then told to the proxies."""
        sitting = [seat for seat in report.seats if pool.seats.get(seat.seat) == seat.number]
        # Asked again after a desk was lost, it has this round in its log already: it must not stand there twice.
        known = [seat for seat in sitting if seat.done or seat.diverged or self._has_moved(seat)]
        batch: list[ev.Event] = [reported(seat) for seat in known]
        decided = rungs_decided(self._ledger, known, plan=self._plan, metric=self._metric)
        batch += decided
        ends = {seat.number: end for seat in known if (end := end_of(seat, decided, self._stops)) is not None}
        for seat in known:
            if seat.number in ends:
                state, reason = ends[seat.number]
                batch.append(ended(seat, state, reason))
                self._stops.pop(seat.number, None)
                del pool.seats[seat.seat]
        batch += [scored(score) for score in report.scores if score.split == "test"]
        if report.clocks and known:
            batch.append(finished(report, pool.num_seats, self._plan.base))
            self._board.worked(report.pool)
        self._emit(*batch)
        for seat in known:
            self._mailboxes.tell(seat.number)
        self._scoring.take(report.pool, report.scores)

    def _can_go_on(self, name: str, pool: OpenPool) -> bool:
        """Whether waiting longer would change nothing: every free seat can be filled, or nobody else will come."""
        if self._scoring.waiting or self._reason_to_leave(name, pool) is not None:
            return True
        waiting = sum(trial.base_key == pool.base_key for trial in self._waiting.values())
        if waiting >= len(pool.free):
            return True
        return len(self._known) >= self._plan.num_trials and bool(pool.seats or waiting)

    def _orders(self, report: RoundReport, pool: OpenPool) -> Orders:
        """Send the pool home, or fill its free seats and hand out what is to be scored.

        What a pool is told is the difference between what it reported and what the desk knows of its seats.
        """
        reason = self._reason_to_leave(report.pool, pool)
        if reason is not None:
            self._close(report.pool, pool, reason)
            return Orders(close=True)
        seated: list[ev.Event] = []
        for seat in pool.free:
            number = self._next_waiting(pool.base_key)
            if number is None:
                break
            record = self._ledger.record(number)
            pool.seats[seat] = number
            step = record.step if record.checkpoint else 0
            seated.append(ev.TrialSeated(number=number, pool=report.pool, seat=seat, resumed_step=step))
        self._emit(*seated)
        there = {seat.seat: seat.number for seat in report.seats}
        return Orders(
            evict=tuple(
                Evict(seat=seat, number=number) for seat, number in there.items() if pool.seats.get(seat) != number
            ),
            admit=tuple(
                self._admission(seat, number) for seat, number in pool.seats.items() if there.get(seat) != number
            ),
            score=self._scoring.give(report.pool),
        )

    def _admission(self, seat: int, number: int) -> Admit:
        record = self._ledger.record(number)
        return Admit(seat=seat, trial=record.plan, checkpoint=record.checkpoint)

    def _close(self, name: str, pool: OpenPool, reason: str) -> None:
        """Its trials have been saved; they wait again, and any pool can go on with them."""
        moved = sorted(pool.seats.values())
        self._board.closes(name)
        self._scoring.give_back(name)
        self._emit(
            *(ev.TrialUnseated(number=number, pool=name, reason=reason) for number in moved),
            ev.PoolClosed(pool=name, reason=reason),
        )
        for number in moved:
            self._wait(number, pool.base_key)

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

    def _pools_wanted(self) -> int:
        """How many pools there should be now."""
        if self._sends_home is not None or self._failure is not None:
            return 0
        repeats = sum(not trial.state.is_final for trial in self._ledger.repeats.values())
        unfinished = max(0, self._plan.num_trials - self._ledger.num_finished) + repeats
        return pools_wanted(unfinished, num_seats=self._plan.num_seats, count=self._spec.pool.count)

    def _reason_to_leave(self, name: str, pool: OpenPool) -> str | None:
        reason = self._sends_home or pool.leaving
        if reason is None and name in self._board.surplus(self._pools_wanted()):
            return "few trials are left, which other pools can hold"
        return reason

    def _is_gone(self, name: str, pool: OpenPool) -> bool:
        return self._board.open.get(name) is not pool

    def _has_moved(self, seat: SeatReport) -> bool:
        return seat.clocks > self._ledger.record(seat.number).clocks

    def _find_pools(self) -> None:
        """The pools of a desk that was lost, with the trials in their seats, as the log left them."""
        # Each opening has an attempt of its own in a session, or one pool would be taken for another.
        self._board.attempts.update(event.pool for event in self._events if isinstance(event, ev.PoolOpened))
        for name, opened in self._ledger.open_pools.items():
            seats = {
                trial.seat: trial.number
                for trial in self._ledger.records()
                if trial.pool == name and trial.seat is not None
            }
            self._board.attempts[name] = opened.attempt
            self._board.opened(
                name,
                OpenPool(opened.base_key, opened.workers, opened.num_seats, opened.attempt, opened.nodes, seats),
            )

    def _give_back(self, name: str, pool: OpenPool | None, reason: str, nodes: tuple[str, ...] = ()) -> None:
        """The trials of a lost pool wait again, and resume where their checkpoints are."""
        lost = sorted(pool.seats.values()) if pool is not None else []
        self._scoring.give_back(name)
        self._emit(ev.PoolLost(pool=name, reason=reason, trials=tuple(lost), nodes=nodes))
        if pool is None:
            return
        pool.seats.clear()
        for number in lost:
            self._wait(number, pool.base_key)

    def _wait(self, number: int, base_key: str) -> None:
        resumed = self._ledger.record(number).checkpoint is not None
        self._waiting[number] = WaitingTrial(number=number, base_key=base_key, resumed=resumed)

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        record = self._ledger.record(number)
        self._emit(ev.TrialEnded(number=number, state=state, reason=reason, score=record.score, step=record.step))
        self._mailboxes.tell(number)

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
