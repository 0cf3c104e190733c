"""A sweep's metrics, as Prometheus gets them by way of Ray: each declared once, here. `telemetry.py` sets them.

Names carry their units. Labels are few and bounded: no trial's number is one. Nothing is imported that is heavy: the
dashboards and their tests read these as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "ray_"
"""What Ray writes before the name of a metric that is not its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A counter ends in `_total` and only grows; a gauge is what was set last. name: without Ray's prefix."""

    name: str
    description: str
    labels: tuple[str, ...]
    kind: Literal["counter", "gauge"]

    @property
    def exported(self) -> str:
        """As Prometheus sees it."""
        return PREFIX + self.name


def _gauge(name: str, description: str, *labels: str) -> Metric:
    return Metric(name=name, description=description, labels=labels, kind="gauge")


def _counter(name: str, description: str, *labels: str) -> Metric:
    return Metric(name=f"{name}_total", description=description, labels=labels, kind="counter")


SWEEP, POOL = ("sweep",), ("sweep", "pool")

RUNNING = _gauge("pharos_sweep_running", "1 while the sweep runs", *SWEEP)
TRIALS = _gauge("pharos_sweep_trials", "Trials that exist, by state", *SWEEP, "state")
TRIALS_PLANNED = _gauge("pharos_sweep_trials_planned", "Trials of the whole search", *SWEEP)
TRIALS_TO_COME = _gauge("pharos_sweep_trials_to_come", "Trials that wait for a seat or do not exist yet", *SWEEP)
TRIAL_CLOCKS = _gauge("pharos_sweep_trial_clocks", "Clocks of all trials together", *SWEEP)
TRIAL_CLOCKS_EXPECTED = _gauge(
    "pharos_sweep_trial_clocks_expected", "Clocks of all trials, if rungs stop as many as they should", *SWEEP
)
BEST = _gauge("pharos_sweep_best_metric", "Score of the best trial so far", *SWEEP, "metric")
BASELINE_SCORE = _gauge("pharos_sweep_baseline_metric", "Score of trial 0, the file's own values", *SWEEP, "metric")
NODE_HOURS = _gauge("pharos_sweep_node_hours", "Hours of the nodes that hold workers, added up", *SWEEP)
COST = _gauge("pharos_sweep_cost", "Node-hours times pool.price_per_node_hour, in its currency", *SWEEP)
TRACKING_BACKLOG = _gauge("pharos_sweep_tracking_backlog_events", "Events that MLflow has not taken yet", *SWEEP)
RUNG_DECISIONS = _gauge(
    "pharos_sweep_rung_decisions", "Decisions at rungs so far: stopped or went_on", *SWEEP, "decision"
)
POOLS_LOST = _gauge("pharos_sweep_pools_lost", "How often a pool's workers died, so far", *SWEEP)
POOLS_ASKED = _gauge("pharos_sweep_pools_asked", "Pools that were asked for and are not up yet", *SWEEP)
NODES_AVOIDED = _gauge("pharos_sweep_nodes_avoided", "Nodes on which pools failed again and again", *SWEEP)

SEATS = _gauge("pharos_pool_seats", "Seats of an open pool", *POOL)
SEATS_TAKEN = _gauge("pharos_pool_seats_taken", "Seats in which a trial trains", *POOL)
WORKERS = _gauge("pharos_pool_workers", "Workers of an open pool", *POOL)
CLOCK_RATE = _gauge("pharos_pool_clocks_per_second", "Clocks a second, over the last round and what follows it", *POOL)
PEAK_FLOPS = _gauge("pharos_pool_peak_flops_per_second", "pool.peak_tflops_per_worker times workers", *POOL)
CLOCKS = _counter("pharos_pool_clocks", "Clocks", *POOL)
SEAT_CLOCKS = _counter("pharos_pool_seat_clocks", "Clocks times seats: what there was to train in", *POOL)
LIVE_SEAT_CLOCKS = _counter("pharos_pool_live_seat_clocks", "Clocks times seats that trained in them", *POOL)
TOKENS = _counter("pharos_pool_tokens", "Positions that passed in clocks: trained, context or pad", *POOL, "kind")
SECONDS = _counter("pharos_pool_seconds", "Seconds of the pool's rank 0, by what they were spent on", *POOL, "part")
FLOPS = _counter("pharos_pool_flops", "Floating-point operations of clocks, without pads (plan/flops.py)", *POOL)
CHECKPOINT_BYTES = _counter("pharos_pool_checkpoint_bytes", "Bytes of checkpoints written", *POOL)

SEAT_TAKEN = _gauge("pharos_seat_taken", "1 while a trial sits in the seat", *POOL, "seat")
SEAT_PROGRESS = _gauge("pharos_seat_progress_ratio", "Share of its steps that the seat's trial has done", *POOL, "seat")

WORKER_CLOCKS = _counter("pharos_worker_clocks", "Clocks that a worker has turned, as they are turned", *POOL, "worker")
WORKER_MEMORY = _gauge(
    "pharos_worker_memory_bytes", "Memory of a worker at its last round: base, seats, activations, host", *POOL,
    "worker", "part",
)  # fmt: skip

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them, in the order of this file."""
