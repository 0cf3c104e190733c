"""A sweep without Ray in which anything may go at any moment: workers, nodes that are drained, and the desk itself.

Desk and log are the real ones; pools report at once, and their keeper and the proxies are coroutines. A desk that goes
is started again from the log, and whoever waited for it asks again, as Ray has actors asked that it restarts: also for
what the lost desk had written already, but not answered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.plans import a_plan, a_spec

from pharos.plan.events import Event
from pharos.plan.exchange import Orders, RoundReport, RoundTimes, SeatReport, StepMetrics
from pharos.plan.sweep_plan import SweepPlan
from pharos.spec.model import SweepSpec
from pharos.sweep.desk import Desk, Patience

NUM_TRIALS, NUM_STEPS, REPORT_EVERY, NUM_SEATS, MAX_POOLS = 12, 40, 8, 2, 3
NODES = ("a", "b", "c", "d")


class DeskLost(Exception):
    """The desk went while it was asked."""


@dataclass(slots=True)
class MemoryLog:
    """The event log's calls, without a disk. Each desk has its own on the same events; that of a lost one is closed."""

    events: list[Event]
    is_closed: bool = False

    def read(self) -> list[Event]:
        return list(self.events)

    def append(self, events: Sequence[Event]) -> tuple[Event, ...]:
        if self.is_closed:
            raise DeskLost
        first = len(self.events)
        written = tuple(replace(event, sequence=first + index) for index, event in enumerate(events))
        self.events.extend(written)
        return written


@dataclass(slots=True, kw_only=True)
class Chaos:
    """share: of the rounds of each pool, in how many something goes wrong."""

    seed: int
    share: float = 0.1
    events: list[Event] = field(default_factory=list)
    lost_desks: int = 0
    lost_pools: int = 0
    drained: int = 0
    draw: random.Random = field(init=False)
    spec: SweepSpec = field(init=False)
    plan: SweepPlan = field(init=False)
    log: MemoryLog = field(init=False)
    desk: Desk = field(init=False)
    gone: asyncio.Event = field(init=False)
    launched: dict[str, asyncio.Task[str | None]] = field(default_factory=dict)
    draining: dict[str, float] = field(default_factory=dict)
    over: bool = False

    def run(self) -> list[Event]:
        """The whole log. Raises TimeoutError where the sweep hangs."""
        asyncio.run(asyncio.wait_for(self._sweep(), timeout=60))
        return self.events

    async def _sweep(self) -> None:
        self.draw = random.Random(self.seed)
        self.spec = a_spec(
            max_steps=NUM_STEPS,
            num_trials=NUM_TRIALS,
            pool={
                "workers": 1,
                "seats_per_worker": NUM_SEATS,
                "count": {"min": 1, "max": MAX_POOLS},
                "worker_memory_gb": 8,
                "max_restarts": 1000,
            },
        )
        self.plan = a_plan(self.spec, rungs=(), report_every=REPORT_EVERY, num_seats=NUM_SEATS, base_key="key")
        self.gone = asyncio.Event()
        self.desk = self._new_desk(restarted=False)
        await self.ask("open", digests={}, versions={}, spec_json={})
        keeper = asyncio.create_task(self._keep())
        left = iter(range(NUM_TRIALS))
        await asyncio.gather(*(self._proxy(left) for _ in range(MAX_POOLS * NUM_SEATS)))
        self.over = True
        await asyncio.sleep(self.draw.random() * 0.005)
        self.lose_desk()  # the next one has to hear that the pools go home
        await keeper

    def _new_desk(self, *, restarted: bool) -> Desk:
        self.log = MemoryLog(self.events)
        return Desk(
            self.spec,
            self.plan,
            self.log,  # type: ignore[arg-type]
            patience=Patience(refill_s=0.01, idle_s=0.01),
            restarted=restarted,
        )

    def lose_desk(self) -> None:
        """Nothing of the old one answers; what it had written stays."""
        self.lost_desks += 1
        self.log.is_closed = True
        self.desk = self._new_desk(restarted=True)
        gone, self.gone = self.gone, asyncio.Event()
        gone.set()

    async def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Ask the desk, and the next one if it goes meanwhile."""
        while True:
            gone = asyncio.create_task(self.gone.wait())
            answer = asyncio.create_task(getattr(self.desk, method)(*arguments, **named))
            await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
            was_lost = gone.done()
            gone.cancel()
            if not was_lost:
                return answer.result()
            answer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await answer

    async def _proxy(self, left: Any) -> None:
        for number in left:
            await self.ask("admit", number, {"optim.learning_rate": 1e-4})
            while not (await self.ask("next_report", number))["done"]:
                pass

    async def _keep(self) -> None:
        """As the keeper does: sees launchers end, starts and takes back what the desk says."""
        while not self.over or self.launched:
            for name, task in list(self.launched.items()):
                if task.done():
                    del self.launched[name]
                    reason = "taken back" if task.cancelled() else task.result()
                    await self.ask("pool_ended", name, reason, () if reason is None else (0,))
            self._drain()
            if self.over:
                await self.ask("send_home", "all trials are done")
            orders = await self.ask("staffing", places=dict.fromkeys(NODES, 1), draining=dict(self.draining))
            for name in orders.open:
                if name not in self.launched:
                    self.launched[name] = asyncio.create_task(self._pool(name))
            for name in orders.cancel:
                self.launched[name].cancel()
            await asyncio.sleep(0.001)

    def _strikes(self, share: float) -> bool:
        return self.draw.random() < share and not self.over

    def _drain(self) -> None:
        """Now and then one node is about to go; it is another node when it comes back."""
        if self.draining and self.draw.random() < 0.2:
            self.draining.clear()
        elif not self.draining and self._strikes(self.share / 2):
            self.drained += 1
            self.draining[self.draw.choice(NODES)] = 0.0

    async def _pool(self, name: str) -> str | None:
        """A pool's whole life; returns why it was lost, if it was."""
        await asyncio.sleep(self.draw.random() * 0.005)
        node = self.draw.choice([node for node in NODES if node not in self.draining])
        attempt = await self.ask("attach", name, "key", 1, NUM_SEATS, (node,))
        hurry = asyncio.create_task(self.ask("wanted_back", name, attempt))
        live: dict[int, tuple[int, int]] = {}
        begun: dict[int, int] = {}
        number_of_round = 0
        try:
            while True:
                report = _report(name, number_of_round, live, begun)
                if self._strikes(self.share):
                    asyncio.get_running_loop().call_later(self.draw.random() * 0.01, self.lose_desk)
                if self._strikes(self.share / 2):
                    self.lost_pools += 1
                    # It has said how its round went, and goes before it hears what comes next.
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.ask("exchange", attempt, report), timeout=0.001)
                    return "lost with its report on the way"
                orders: Orders = await self.ask("exchange", attempt, report)
                if orders.close:
                    return None
                for eviction in orders.evict:
                    assert live.pop(eviction.seat)[0] == eviction.number
                for admission in orders.admit:
                    assert admission.seat not in live, "a seat was given twice"
                    done = 0 if admission.checkpoint is None else int(admission.checkpoint.rsplit("-", 1)[1])
                    live[admission.seat] = (admission.trial.number, done)
                await asyncio.sleep(self.draw.random() * 0.002)
                if self._strikes(self.share / 2):
                    self.lost_pools += 1
                    return "lost in the middle of a round"
                begun = {seat: step for seat, (_, step) in live.items()}
                steps = self.draw.randint(1, REPORT_EVERY) if hurry.done() else REPORT_EVERY
                live = {seat: (number, min(NUM_STEPS, step + steps)) for seat, (number, step) in live.items()}
                number_of_round += 1
        finally:
            hurry.cancel()


def _report(name: str, number: int, live: dict[int, tuple[int, int]], begun: dict[int, int]) -> RoundReport:
    seats = tuple(
        SeatReport(
            number=trial,
            seat=seat,
            step=step,
            clocks=step,
            steps=tuple(
                StepMetrics(step=each, time_s=0.0, loss=1.0, grad_norm=1.0, learning_rate=1e-4, epoch=0.1, num_tokens=1)
                for each in range(begun[seat] + 1, step + 1)
            ),
            eval_metrics={"eval_loss": 1.0},
            best_metric=1.0,
            best_step=step,
            best_checkpoint=f"/trials/{trial}/step-{step}",
            checkpoint=f"/trials/{trial}/step-{step}",
            done=step >= NUM_STEPS,
        )
        for seat, (trial, step) in sorted(live.items())
    )
    return RoundReport(
        pool=name,
        round=number,
        clocks=REPORT_EVERY if seats else 0,
        live_seat_clocks=REPORT_EVERY * len(seats),
        num_tokens=1,
        num_padded_tokens=1,
        times=RoundTimes(),
        seats=seats,
    )
