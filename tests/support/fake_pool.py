"""A pool that trains nothing, and a desk for it: the rounds of a sweep without models, processes or Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.support.plans import a_plan, a_spec

from pharos.plan.exchange import Orders, RoundReport, RoundTimes, Score, ScoreReport, SeatReport
from pharos.plan.ledger import Ledger
from pharos.spec.model import PoolSpec
from pharos.sweep.desk import Desk, EventListener, Patience
from pharos.track.event_log import EventLog

NUM_CLOCKS = 40
REPORT_EVERY = 10
RUNGS = (10, 20)


class FakePool:
    """A pool that trains nothing: a trial's metric is given by its number, and its clocks advance by rounds."""

    def __init__(
        self,
        desk: Desk,
        metric: Callable[[int, int], float],
        *,
        num_seats: int = 4,
        name: str = "pool-0",
        node: str = "a",
    ):
        self.desk, self.metric, self.num_seats, self.name, self.node = desk, metric, num_seats, name, node
        self.live: dict[int, tuple[int, int]] = {}
        self.round = 0
        self.order = 1
        self.scored: list[Score] = []
        self.closed = False

    async def attach(self) -> None:
        self.live.clear()
        self.attempt = await self.desk.attach(
            self.name, "key", workers=2, num_seats=self.num_seats, nodes=(self.node,) * 2
        )
        await self.obey(await self.desk.exchange(self.attempt, self.report()))

    async def turn(self) -> Orders:
        self.advance()
        orders = await self.desk.exchange(self.attempt, self.report())
        await self.obey(orders)
        return orders

    def advance(self) -> None:
        for seat, (number, clocks) in self.live.items():
            self.live[seat] = (number, clocks + REPORT_EVERY)

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.live.values()]

    async def obey(self, orders: Orders) -> None:
        for eviction in orders.evict:
            assert self.live.pop(eviction.seat)[0] == eviction.number
        for admission in orders.admit:
            assert admission.seat not in self.live
            done = 0 if admission.checkpoint is None else int(admission.checkpoint.rsplit("-", 1)[1])
            self.live[admission.seat] = (admission.trial.number, done)
        self.scored = list(orders.score)
        self.closed = orders.close
        if self.closed:
            self.live.clear()

    def report(self) -> RoundReport:
        seats = [self.seat_report(seat, number, clocks) for seat, (number, clocks) in self.live.items()]
        self.round += 1
        return RoundReport(
            pool=self.name,
            round=self.round,
            clocks=REPORT_EVERY if seats else 0,
            live_seat_clocks=REPORT_EVERY * len(seats),
            num_tokens=100,
            num_padded_tokens=120,
            times=RoundTimes(clocks_s=1.0),
            seats=tuple(seats[:: self.order]),
            scores=tuple(ScoreReport(number=s.number, split=s.split, metrics={"test_loss": 1.5}) for s in self.scored),
        )

    def seat_report(self, seat: int, number: int, clocks: int) -> SeatReport:
        value = self.metric(number, clocks)
        finite = value == value
        return SeatReport(
            number=number,
            seat=seat,
            step=clocks,
            clocks=clocks,
            eval_metrics={"eval_loss": value} if finite else {},
            best_metric=value if finite else None,
            best_step=clocks,
            best_checkpoint=f"/trials/{number}/step-{clocks}",
            checkpoint=f"/trials/{number}/step-{clocks}",
            done=clocks >= NUM_CLOCKS,
            diverged=None if finite else "loss is nan at step 7",
        )


def a_desk(
    tmp_path: Path,
    *,
    num_trials: int = 8,
    restarted: bool = False,
    rungs: tuple[int, ...] = RUNGS,
    listener: EventListener | None = None,
    **pool: Any,
) -> Desk:
    spec = a_spec(max_steps=NUM_CLOCKS, num_trials=num_trials)
    spec = spec.model_copy(update={"pool": PoolSpec.model_validate(spec.pool.model_dump() | pool)})
    plan = a_plan(spec, rungs=rungs, report_every=REPORT_EVERY, num_seats=4, base_key="key")
    patience = Patience(refill_s=0.05, idle_s=0.05)
    log = EventLog(tmp_path / "events")
    return Desk(spec, plan, log, patience=patience, now=lambda: 1.0, restarted=restarted, listener=listener)


def ledger_of(tmp_path: Path) -> Ledger:
    return Ledger.of(EventLog(tmp_path / "events").read())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, timeout=30))
