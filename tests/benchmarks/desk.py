"""The desk's own work: simulated trials through simulated pools, without Ray, training or proxies' processes.

The desk is the real one, with its event log on disk. Pools answer at once, so all time is the desk's and the log's but
for what making reports costs, which is measured alone and shown. How the work grows is the exponent of a power law.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log
from pathlib import Path

from tests.benchmarks.reporting import Options, Report, Row, Table, Target
from tests.support.plans import a_plan, a_spec

from pharos.plan.exchange import Orders, RoundReport, RoundTimes, SeatReport, StepMetrics
from pharos.plan.ledger import Ledger
from pharos.sweep.desk import Desk, Patience
from pharos.track.event_log import EventLog

NUM_STEPS, STEPS_OF_ROUND = 200, 25
RUNGS = (50, 100)
WORKERS, SEATS_PER_WORKER = 4, 4
NUM_SEATS = WORKERS * SEATS_PER_WORKER
TRIALS, POOLS = (100, 300, 1000), (1, 4, 16)
REPEATS = 5
LINEAR = 1.15
"""A power law's exponent up to which growth is called linear; quadratic work would give 2."""


@dataclass(slots=True, kw_only=True)
class SimulatedPool:
    """A pool that reports whatever rounds its orders ask for, at once. reporting_s: what that cost by itself."""

    desk: Desk
    name: str
    live: dict[int, tuple[int, int]] = field(default_factory=dict)
    round: int = 0
    seat_rounds: int = 0
    reporting_s: float = 0.0

    async def run(self) -> None:
        """Until the desk closes it."""
        attempt = await self.desk.attach(self.name, "key", WORKERS, NUM_SEATS)
        orders = await self.desk.exchange(attempt, self._report())
        while not orders.close:
            began_s = time.process_time()
            self._obey(orders)
            report = self._report()
            self.reporting_s += time.process_time() - began_s
            orders = await self.desk.exchange(attempt, report)

    def _obey(self, orders: Orders) -> None:
        for eviction in orders.evict:
            del self.live[eviction.seat]
        for admission in orders.admit:
            done = 0 if admission.checkpoint is None else int(admission.checkpoint.rsplit("-", 1)[1])
            self.live[admission.seat] = (admission.trial.number, done)
        for seat, (number, step) in self.live.items():
            self.live[seat] = (number, step + STEPS_OF_ROUND)

    def _report(self) -> RoundReport:
        seats = tuple(_seat_report(seat, number, step) for seat, (number, step) in self.live.items())
        self.round += 1
        self.seat_rounds += len(seats)
        return RoundReport(
            pool=self.name,
            round=self.round,
            clocks=STEPS_OF_ROUND if seats else 0,
            live_seat_clocks=STEPS_OF_ROUND * len(seats),
            num_tokens=4000,
            num_padded_tokens=5000,
            times=RoundTimes(clocks_s=1.0),
            seats=seats,
        )


def run(options: Options) -> Report:
    trials, pools = ((20, 40), (1, 2)) if options.smoke else (TRIALS, POOLS)
    by_trials = [quietest(num_trials=number, num_pools=pools[-1]) for number in trials]
    by_pools = [quietest(num_trials=trials[-1], num_pools=number) for number in pools[:-1]] + by_trials[-1:]
    largest = by_trials[-1]
    return Report(
        settings={
            "seats of a pool": NUM_SEATS,
            "rounds of a trial that is not stopped": NUM_STEPS // STEPS_OF_ROUND,
            "steps of a round": STEPS_OF_ROUND,
            "rungs at steps": list(RUNGS),
            "measurements, of which the quickest counts": REPEATS,
        },
        tables=[
            Table(title=f"over {pools[-1]} pools", rows=by_trials),
            Table(title=f"{trials[-1]} trials", rows=by_pools),
        ],
        quality={
            "every trial ended once": all(row["trials"] == row["trials ended"] for row in [*by_trials, *by_pools]),
        },
        targets=[
            Target(
                what="ms of a processor, a seat and round",
                measured=largest["processor ms"],
                limit=1.0,
                at_most=True,
            ),
            Target(
                what="growth with seat-rounds as more trials come: exponent",
                measured=exponent([(row["seat-rounds"], row["processor s"]) for row in by_trials]),
                limit=LINEAR,
                at_most=True,
            ),
            Target(
                what="growth with pools at the same trials: exponent",
                measured=exponent([(row["pools"], row["processor s"]) for row in by_pools]),
                limit=LINEAR - 1,
                at_most=True,
            ),
        ],
        notes=[
            "the log is written in it; ms by the clock have the waiting for the disk and for other processes too",
            "ms of reports is what the simulated pools themselves cost; the others are without it",
        ],
    )


def quietest(*, num_trials: int, num_pools: int) -> Row:
    """The one of several measurements that the least else happened to: the small ones take a fifth of a second."""
    rows = [measure(num_trials=num_trials, num_pools=num_pools) for _ in range(REPEATS)]
    return min(rows, key=lambda row: float(row["processor s"]))


def measure(*, num_trials: int, num_pools: int) -> Row:
    """One sweep to its end, by the clock and by the processor."""
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as directory:
        log_of_it = EventLog(Path(directory, "events"))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        pools = asyncio.run(_sweep(log_of_it, num_trials=num_trials, num_pools=num_pools))
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        ended = [event.number for event in log_of_it.read() if event.kind == "trial_ended"]
        ledger = Ledger.of(log_of_it.read())
    if sorted(ended) != list(range(num_trials)):
        raise RuntimeError("a trial was lost, or ended twice")
    seat_rounds = sum(pool.seat_rounds for pool in pools)
    reporting_s = sum(pool.reporting_s for pool in pools)
    return {
        "trials": num_trials,
        "pools": num_pools,
        "trials ended": len(ended),
        "of them pruned": sum(trial.state == "PRUNED" for trial in ledger.trials.values()),
        "seat-rounds": seat_rounds,
        "s": round(wall_s, 3),
        "processor s": round(cpu_s - reporting_s, 3),
        "ms": round((wall_s - reporting_s) / seat_rounds * 1e3, 3),
        "processor ms": round((cpu_s - reporting_s) / seat_rounds * 1e3, 3),
        "ms of reports": round(reporting_s / seat_rounds * 1e3, 3),
    }


async def _sweep(log_of_it: EventLog, *, num_trials: int, num_pools: int) -> Sequence[SimulatedPool]:
    """Plain coroutines stand where Ray Tune's proxies would: as many as there are seats, each one trial at a time."""
    pools_of_spec = {
        "workers": WORKERS,
        "seats_per_worker": SEATS_PER_WORKER,
        "count": {"min": 1, "max": num_pools},
        "worker_memory_gb": 8,
    }
    spec = a_spec(max_steps=NUM_STEPS, num_trials=num_trials, pool=pools_of_spec)
    plan = a_plan(spec, rungs=RUNGS, report_every=STEPS_OF_ROUND, num_seats=NUM_SEATS, base_key="key")
    desk = Desk(spec, plan, log_of_it, patience=Patience(refill_s=60, idle_s=60))
    await desk.open(digests={}, versions={}, spec_json={})
    left = iter(range(num_trials))

    async def proxy() -> None:
        for number in left:
            await desk.admit(number, {"optim.learning_rate": 1e-4})
            while not (await desk.next_report(number))["done"]:
                pass

    pools = [SimulatedPool(desk=desk, name=f"pool-{index}") for index in range(num_pools)]
    running = [asyncio.create_task(pool.run()) for pool in pools]
    await asyncio.gather(*(proxy() for _ in range(min(num_trials, num_pools * NUM_SEATS))))
    await desk.send_home("all trials are done")
    await asyncio.gather(*running)
    return pools


def _seat_report(seat: int, number: int, step: int) -> SeatReport:
    """A loss that falls, lower for some trials than for others."""
    loss = 1.0 + (number * 37 % 101) / 100 + 1 / (step + 1)
    checkpoint = f"/storage/simulated/trials/{number:04d}/step-{step:06d}"
    return SeatReport(
        number=number,
        seat=seat,
        step=step,
        clocks=step,
        steps=tuple(
            StepMetrics(
                step=each, time_s=1e9 + each, loss=loss, grad_norm=1.0, learning_rate=1e-4, epoch=0.1, num_tokens=80
            )
            for each in range(step - STEPS_OF_ROUND + 1, step + 1)
        ),
        eval_metrics={"eval_loss": loss},
        best_metric=loss,
        best_step=step,
        best_checkpoint=checkpoint,
        checkpoint=checkpoint,
        done=step >= NUM_STEPS,
    )


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The largest exponent of the power laws through neighbouring points (amount, work)."""
    return max(log(more / less) / log(large / small) for (small, less), (large, more) in pairwise(points))
