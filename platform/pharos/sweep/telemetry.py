"""Sets a sweep's metrics from its events, in the desk's process, and hands them to Ray.

Ray drops a gauge that nobody sets for 20 s (twice its report interval), also while the process lives. So a thread sets
them again and again, and what is over, such as a closed pool, is simply no longer set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from pharos.plan import events as ev
from pharos.plan.ledger import Ledger
from pharos.plan.standing import PoolWatch, seconds_by_part, token_kinds
from pharos.plan.sweep_plan import SweepPlan
from pharos.plan.trial import BASELINE, TrialState
from pharos.spec.model import SweepSpec
from pharos.sweep import metrics as m

REFRESH_S = 4.0
"""Well below Ray's report interval of 10 s, after two of which a gauge is forgotten."""

Tags = tuple[str, ...]
"""A metric's label values, in the order of its labels."""


class Gauges:
    """What is true now, set again by a thread of its own from `start` to `stop`."""

    def __init__(self, export: Callable[[m.Metric, Tags, float], None]) -> None:
        self._export = export
        self._values: dict[tuple[m.Metric, Tags], float] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="pharos-metrics", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def replace(self, values: Mapping[tuple[m.Metric, Tags], float]) -> None:
        """These are all that there are now; others are forgotten."""
        with self._lock:
            self._values = dict(values)
        self.export()

    def export(self) -> None:
        with self._lock:
            for (metric, tags), value in self._values.items():
                self._export(metric, tags, value)

    def _run(self) -> None:
        while not self._stopping.wait(REFRESH_S):
            self.export()


class RayExporter:
    """Hands values to Ray, whose metrics are made when they are first used: in the process that uses them."""

    def __init__(self) -> None:
        self._made: dict[m.Metric, Any] = {}

    def set(self, metric: m.Metric, tags: Tags, value: float) -> None:
        self._of(metric).set(value, tags=dict(zip(metric.labels, tags, strict=True)))

    def add(self, metric: m.Metric, tags: Tags, value: float) -> None:
        """Ray refuses to add nothing."""
        if value > 0:
            self._of(metric).inc(value, tags=dict(zip(metric.labels, tags, strict=True)))

    def _of(self, metric: m.Metric) -> Any:
        if metric not in self._made:
            from ray.util import metrics

            kind = metrics.Gauge if metric.kind == "gauge" else metrics.Counter
            self._made[metric] = kind(metric.name, description=metric.description, tag_keys=metric.labels)
        return self._made[metric]


@dataclass(slots=True)
class SweepMetrics:
    """The listener of the desk: `begin` with what happened before this session, then `take` what happens."""

    spec: SweepSpec
    plan: SweepPlan
    exporter: RayExporter = field(default_factory=RayExporter)
    _ledger: Ledger = field(default_factory=Ledger)
    _watch: PoolWatch = field(default_factory=PoolWatch)
    _gauges: Gauges | None = None

    def begin(self, past: Sequence[ev.Event]) -> None:
        for event in past:
            self._apply(event)
        self._gauges = Gauges(self.exporter.set)
        self._gauges.start()

    def take(self, events: Sequence[ev.Event]) -> None:
        for event in events:
            self._apply(event)
            self._count(event)
        if self._gauges is not None:
            self._gauges.replace(self.gauges())

    def gauges(self) -> dict[tuple[m.Metric, Tags], float]:
        """Every gauge that is true now."""
        return self._sweep_gauges() | self._pool_gauges() | self._seat_gauges() | self._worker_gauges()

    def _apply(self, event: ev.Event) -> None:
        self._ledger.apply(event)
        self._watch.apply(event)

    # Counters: what this session adds.

    def _count(self, event: ev.Event) -> None:
        if not isinstance(event, ev.RoundFinished):
            return
        pool, add = (self.spec.name, event.pool), self.exporter.add
        add(m.CLOCKS, pool, event.clocks)
        add(m.SEAT_CLOCKS, pool, event.clocks * event.num_seats)
        add(m.LIVE_SEAT_CLOCKS, pool, event.live_seat_clocks)
        add(m.CHECKPOINT_BYTES, pool, event.checkpoint_bytes)
        for kind, tokens in token_kinds(event).items():
            add(m.TOKENS, (*pool, kind), tokens)
        for part, seconds in seconds_by_part(event).items():
            add(m.SECONDS, (*pool, part), seconds)
        add(m.FLOPS, pool, event.num_flops)

    # Gauges: what is true now.

    def _sweep_gauges(self) -> dict[tuple[m.Metric, Tags], float]:
        ledger, sweep = self._ledger, (self.spec.name,)
        states = [trial.state for trial in ledger.trials.values()]
        values: dict[tuple[m.Metric, Tags], float] = {
            (m.RUNNING, sweep): float(ledger.ended is None),
            (m.TRIALS_PLANNED, sweep): self.plan.num_trials,
            (m.TRIALS_TO_COME, sweep): max(0, self.plan.num_trials - len(states)) + states.count(TrialState.WAITING),
            (m.TRIAL_CLOCKS, sweep): ledger.totals.live_seat_clocks,
            (m.TRIAL_CLOCKS_EXPECTED, sweep): self.plan.expected_trial_clocks,
            (m.NODE_HOURS, sweep): self._watch.node_time.node_s / 3600,
            (m.POOLS_LOST, sweep): ledger.restarts,
            (m.POOLS_ASKED, sweep): len(self._watch.asked),
            (m.NODES_AVOIDED, sweep): len(self._watch.avoided),
        }
        stopped = sum(decision.stopped for decision in ledger.decisions)
        for name, decisions in {"stopped": stopped, "went_on": len(ledger.decisions) - stopped}.items():
            values[m.RUNG_DECISIONS, (*sweep, name)] = decisions
        for state in TrialState:
            values[m.TRIALS, (*sweep, str(state))] = states.count(state)
        if self.spec.pool.price_per_node_hour is not None:
            values[m.COST, sweep] = self._watch.node_time.cost(self.spec.pool.price_per_node_hour)
        best, baseline = ledger.best(), ledger.trials.get(BASELINE)
        for metric, trial in ((m.BEST, best), (m.BASELINE_SCORE, baseline)):
            if trial is not None and trial.score is not None and isfinite(trial.score):
                values[metric, (*sweep, ledger.metric)] = trial.score
        return values

    def _pool_gauges(self) -> dict[tuple[m.Metric, Tags], float]:
        values: dict[tuple[m.Metric, Tags], float] = {}
        taken = [trial.pool for trial in self._ledger.records() if trial.state == TrialState.RUNNING]
        for name, opened in self._watch.opened.items():
            pool = (self.spec.name, name)
            values[m.SEATS, pool] = opened.num_seats
            values[m.SEATS_TAKEN, pool] = taken.count(name)
            values[m.WORKERS, pool] = opened.workers
            if self.spec.pool.peak_tflops_per_worker is not None:
                values[m.PEAK_FLOPS, pool] = self.spec.pool.peak_tflops_per_worker * 1e12 * opened.workers
            if self._watch.rounds[name]:
                last = self._watch.rounds[name][-1]
                values[m.CLOCK_RATE, pool] = last.clocks / max(sum(seconds_by_part(last).values()), 1e-9)
        return values

    def _seat_gauges(self) -> dict[tuple[m.Metric, Tags], float]:
        values: dict[tuple[m.Metric, Tags], float] = {}
        for name, opened in self._watch.opened.items():
            for place in range(opened.num_seats):
                values[m.SEAT_TAKEN, (self.spec.name, name, str(place))] = 0.0
        for trial in self._ledger.records():
            if trial.state == TrialState.RUNNING and trial.pool in self._watch.opened:
                seat = (self.spec.name, trial.pool, str(trial.seat))
                values[m.SEAT_TAKEN, seat] = 1.0
                values[m.SEAT_PROGRESS, seat] = trial.step / trial.plan.num_steps
        return values

    def _worker_gauges(self) -> dict[tuple[m.Metric, Tags], float]:
        return {
            (m.WORKER_MEMORY, (self.spec.name, name, str(memory["worker"]), part)): memory[part]
            for name, rounds in self._watch.rounds.items()
            for last in list(rounds)[-1:]
            for memory in last.memory
            for part in ("base", "seats", "activations", "host")
            if memory[part]
        }


def clock_counter(sweep: str, *, pool: str, worker: int) -> Callable[[], None]:
    """To be called in a worker's process, after every clock: between rounds it is what shows that the pool lives."""
    exporter, tags = RayExporter(), (sweep, pool, str(worker))
    return lambda: exporter.add(m.WORKER_CLOCKS, tags, 1)


@contextmanager
def backlog_shown(sweep: str, backlog: Callable[[], int]) -> Iterator[None]:
    """While it is open, how many events the tracking server has not taken is exported from this process."""
    exporter = RayExporter()
    gauges = Gauges(lambda metric, tags, _: exporter.set(metric, tags, float(backlog())))
    gauges.replace({(m.TRACKING_BACKLOG, (sweep,)): 0.0})
    gauges.start()
    try:
        yield
    finally:
        gauges.stop()
