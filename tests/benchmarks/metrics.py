"""What measuring costs a clock: what a clock calls times the measured cost of a call, against the measured clock.

Counted as if every module with parameters were gathered forward and backward, as under ZeRO-3, though the clock that it
is held against is that of a whole base on one rank, which is faster. Counters go to a real Ray.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from tests.benchmarks.loops import Seats, llama, random_rows, replicated, trial
from tests.benchmarks.reporting import Options, Report, Table, Target
from tests.support.measured_sweep import measured_spec, measured_sweep
from tests.support.plans import a_plan

from pharos.plan import events as ev
from pharos.sweep.telemetry import RayExporter, SweepMetrics, clock_counter
from pharos.train.measure import worker_memory
from pharos.train.stopwatch import Stopwatch

# hidden size, layers, rows of a seat, seats; the last has the quickstart's shape
SHAPES = ((128, 4, 1, 1), (128, 4, 1, 8), (192, 3, 8, 4))
REPORT_EVERY = 10
"""Clocks of a round. Fewer than sweeps have by themselves, so that what is done once a round weighs more."""
ENTERS = 3
"""Of a clock beside gathers: forward, backward, optimizer."""


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    shapes = ((16, 1, 1, 1),) if options.smoke else SHAPES
    repetitions = 1 if options.smoke else 7
    with _ray(start=not options.smoke):
        exporter = _Silent() if options.smoke else RayExporter()
        tell_us = _microseconds(_teller(exporter), 200 if options.smoke else 20_000)
        desk_us = _desk_us(exporter, repetitions)
    rows = [_measure(*shape, tell_us=tell_us, desk_us=desk_us, repetitions=repetitions) for shape in shapes]
    return Report(
        settings={"base": "replicated, one process", "clocks of a round": REPORT_EVERY, "of repetitions": "median"},
        tables=[
            Table(
                title="microseconds a call",
                rows=[{"counting a clock, through Ray": tell_us, "a round in the desk": desk_us, **_stopwatch_us()}],
            ),
            Table(title="a clock, and what measuring adds to it", rows=rows),
        ],
        quality={"events of the log that was told": "those of a simulated sweep of 24 trials"},
        targets=[
            Target(what=f"% of a clock, {row['shape']}", measured=row["% of a clock"], limit=1.0, at_most=True)
            for row in rows
        ],
        notes=["a round in the desk is another process's work; it is counted as if the clocks waited for all of it"],
    )


def _measure(
    hidden_size: int,
    num_layers: int,
    batch_rows: int,
    num_seats: int,
    *,
    tell_us: float,
    desk_us: float,
    repetitions: int,
) -> dict[str, float | str]:
    model = llama(hidden_size=hidden_size, num_layers=num_layers)
    num_fetches = 2 * sum(any(True for _ in module.parameters(recurse=False)) for module in model.modules())
    rows = random_rows(8 * batch_rows, shortest=48, longest=48, trained_share=1.0)
    seats = Seats(replicated(model), rows, num_seats=num_seats, micro_batch_size=batch_rows, r_max=8)
    plans = [trial(number, num_steps=8, batch_size=batch_rows) for number in range(num_seats)]
    seats.train(plans)
    clock_us = median(seats.train(plans).seconds for _ in range(repetitions)) / 8 * 1e6
    costs = _stopwatch_us()
    idle_us = (ENTERS + 2 * num_fetches) * costs["stopwatch, not running"]
    timed_us = (ENTERS + 2 * num_fetches) * costs["stopwatch, running"]
    round_us = timed_us + desk_us + _microseconds(lambda: worker_memory(seats._worker), 20)
    added_us = tell_us + idle_us + round_us / REPORT_EVERY
    return {
        "shape": f"hidden {hidden_size}, {num_layers} layers, {batch_rows} x 48, K={num_seats}",
        "clock us": clock_us,
        "gathers": num_fetches,
        "every clock us": tell_us + idle_us,
        "once a round us": round_us,
        "% of a clock": 100 * added_us / clock_us,
    }


def _stopwatch_us() -> dict[str, float]:
    """One change of part, with what wraps a gather."""
    costs = {}
    for name in ("stopwatch, not running", "stopwatch, running"):
        watch = Stopwatch(torch.device("cpu"))
        if name.endswith(" running") and "not" not in name:
            watch.start()
        costs[name] = _microseconds(lambda watch=watch: watch.enter("forward"), 20_000)
    return costs


def _desk_us(exporter: RayExporter, repetitions: int) -> float:
    """What the desk's listener takes for a round of eight seats: counters, and every gauge anew."""
    spec = measured_spec(24)
    events = measured_sweep(spec)
    metrics = SweepMetrics(spec, a_plan(spec), exporter=exporter)
    begun, times = 0, []
    for place, event in enumerate(events):
        if not isinstance(event, ev.RoundFinished):
            continue
        started = time.perf_counter()
        metrics.take(events[begun : place + 1])
        for (metric, tags), value in metrics.gauges().items():
            exporter.set(metric, tags, value)
        times.append(time.perf_counter() - started)
        begun = place + 1
    return median(times) * 1e6 if repetitions else 0.0


def _teller(exporter: RayExporter) -> Callable[[], None]:
    if isinstance(exporter, _Silent):
        return lambda: None
    return clock_counter("benchmark", pool="pool-0", worker=0)


def _microseconds(call: Callable[[], object], number: int) -> float:
    started = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - started) / number * 1e6


class _Silent(RayExporter):
    """For the cheapest form, which starts no Ray."""

    def set(self, *_: object) -> None: ...

    def add(self, *_: object) -> None: ...


@contextmanager
def _ray(*, start: bool) -> Iterator[None]:
    if not start:
        yield
        return
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init(num_cpus=1, include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
