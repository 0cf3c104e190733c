"""A sweep's metrics: declared once, with few labels, and set from its events; what is over is no longer told."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Iterator

import pytest
from tests.support.measured_sweep import measured_spec, measured_sweep
from tests.support.plans import a_plan
from tests.support.simulated_sweep import Happening

from pharos.plan import events as ev
from pharos.sweep import metrics as m
from pharos.sweep.telemetry import Gauges, RayExporter, SweepMetrics

LABELS = {"sweep", "pool", "worker", "seat", "state", "metric", "decision", "kind", "part"}
BY_OTHERS = {m.WORKER_CLOCKS, m.TRACKING_BACKLOG}
"""Set in a worker's and in the driver's process."""


class FakeExporter(RayExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gauges: dict[tuple[m.Metric, tuple[str, ...]], float] = {}
        self.counters: dict[tuple[m.Metric, tuple[str, ...]], float] = defaultdict(float)

    def set(self, metric: m.Metric, tags: tuple[str, ...], value: float) -> None:
        assert (metric.kind, len(tags)) == ("gauge", len(metric.labels))
        self.gauges[metric, tags] = value

    def add(self, metric: m.Metric, tags: tuple[str, ...], value: float) -> None:
        assert (metric.kind, len(tags)) == ("counter", len(metric.labels))
        self.counters[metric, tags] += value


SPEC = measured_spec()
EVENTS = measured_sweep(SPEC)
ROUNDS = [event for event in EVENTS if isinstance(event, ev.RoundFinished)]


@pytest.fixture
def metrics() -> Iterator[SweepMetrics]:
    made = SweepMetrics(SPEC, a_plan(SPEC), exporter=FakeExporter())
    yield made
    if made._gauges is not None:
        made._gauges.stop()


def counted(metrics: SweepMetrics) -> dict[tuple[m.Metric, tuple[str, ...]], float]:
    assert isinstance(metrics.exporter, FakeExporter)
    return metrics.exporter.counters


def test_a_metric_is_declared_once_and_its_name_says_what_it_is() -> None:
    names = [metric.name for metric in m.METRICS]
    assert len(names) == len(set(names)) > 20
    for metric in m.METRICS:
        assert metric.name.startswith("pharos_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.description
        assert set(metric.labels) <= LABELS, "a label is bounded; a trial's number is not"
        assert "sweep" in metric.labels


def test_every_metric_is_set_by_a_sweep(metrics: SweepMetrics) -> None:
    metrics.begin([])
    metrics.take(EVENTS[: len(EVENTS) // 2])
    assert isinstance(metrics.exporter, FakeExporter)
    told = {metric for metric, _ in (*metrics.exporter.gauges, *metrics.exporter.counters)}
    assert set(m.METRICS) - told == BY_OTHERS


def test_counters_add_up_the_rounds_and_every_second_once(metrics: SweepMetrics) -> None:
    metrics.begin([])
    metrics.take(EVENTS)
    pool = ("simulated", "pool-0")
    assert counted(metrics)[m.CLOCKS, pool] == sum(event.clocks for event in ROUNDS)
    assert counted(metrics)[m.LIVE_SEAT_CLOCKS, pool] == sum(event.live_seat_clocks for event in ROUNDS)
    seconds = {tags[2]: value for (metric, tags), value in counted(metrics).items() if metric == m.SECONDS}
    assert sum(seconds.values()) == pytest.approx(2.0 * len(ROUNDS))
    assert seconds["batch"] == pytest.approx(0.2 * len(ROUNDS))
    tokens = {tags[2]: value for (metric, tags), value in counted(metrics).items() if metric == m.TOKENS}
    assert sum(tokens.values()) == sum(event.num_padded_tokens for event in ROUNDS)
    assert tokens["context"] == 50 * sum(event.live_seat_clocks > 0 for event in ROUNDS)


def test_what_was_before_a_resume_is_known_but_not_counted_again(metrics: SweepMetrics) -> None:
    half = next(i for i, event in enumerate(EVENTS) if event is ROUNDS[4]) + 1
    metrics.begin(EVENTS[:half])
    assert not counted(metrics)
    metrics.take(EVENTS[half:])
    assert counted(metrics)[m.CLOCKS, ("simulated", "pool-0")] == sum(event.clocks for event in ROUNDS[5:])
    assert metrics.gauges()[m.TRIAL_CLOCKS, ("simulated",)] == sum(event.live_seat_clocks for event in ROUNDS)


def test_a_closed_pool_is_no_longer_told(metrics: SweepMetrics) -> None:
    metrics.begin([])
    metrics.take(EVENTS[: len(EVENTS) // 2])
    assert any("pool" in metric.labels for metric, _ in metrics.gauges())
    metrics.take([ev.PoolClosed(pool="pool-0")])
    assert [metric.name for metric, _ in metrics.gauges() if "pool" in metric.labels] == []


def test_a_lost_pool_and_a_diverged_trial_are_told() -> None:
    happening = Happening(diverging=frozenset({2}), lost_at=frozenset({3}))
    metrics = SweepMetrics(SPEC, a_plan(SPEC), exporter=FakeExporter())
    metrics.take(measured_sweep(SPEC, happening=happening))
    gauges = metrics.gauges()
    assert gauges[m.POOLS_LOST, ("simulated",)] == 1
    assert gauges[m.TRIALS, ("simulated", "DIVERGED")] == 1
    assert gauges[m.RUNNING, ("simulated",)] == 0


def test_gauges_are_set_again_and_what_is_replaced_is_not() -> None:
    told: list[tuple[str, float]] = []
    gauges = Gauges(lambda metric, tags, value: told.append((metric.name, value)))
    gauges.replace({(m.RUNNING, ("s",)): 1.0, (m.COST, ("s",)): 2.0})
    gauges.replace({(m.RUNNING, ("s",)): 1.0})
    told.clear()
    gauges.export()
    assert told == [("pharos_sweep_running", 1.0)]


def test_it_travels_to_the_desks_process() -> None:
    copy = pickle.loads(pickle.dumps(SweepMetrics(SPEC, a_plan(SPEC))))
    assert copy.spec == SPEC
