"""How a sweep stands: rates of pools, parts of their time, node-hours, arithmetic; all of it from the log alone."""

from __future__ import annotations

import pytest
from tests.support.measured_sweep import measured_spec, measured_sweep
from tests.support.plans import BASE
from tests.support.simulated_sweep import Happening

from pharos.plan import events as ev
from pharos.plan.cost import NodeTime
from pharos.plan.flops import training_flops
from pharos.plan.ledger import Ledger
from pharos.plan.standing import LoggedPlan, PoolWatch, Standing, standing

SPEC = measured_spec()
EVENTS = measured_sweep(SPEC)


def standing_after(events: list[ev.Event]) -> Standing:
    watch, ledger = PoolWatch(), Ledger.of(events)
    for event in events:
        watch.apply(event)
    return standing(ledger, watch)


def test_a_pools_rates_are_those_of_its_rounds() -> None:
    half = standing_after(EVENTS[: len(EVENTS) // 2])
    [pool] = half.pools
    assert (pool.pool, pool.workers, pool.seats) == ("pool-0", 2, 8)
    assert pool.clocks_per_s == pytest.approx(20 / 2.0)
    assert sum(pool.shares.values()) == pytest.approx(1)
    assert pool.shares["backward"] == pytest.approx(0.7 / 2.0)
    assert pool.flops_per_s == pytest.approx(1e10 / 1.5), "of its clocks alone"
    assert pool.peak_share == pytest.approx(1e10 / 1.5 / (0.01e12 * 2))
    assert pool.memory_bytes == 700_000_000
    assert 0 < pool.occupancy <= 1


def test_an_ended_sweep_has_no_pools_and_says_how_it_ended() -> None:
    now = standing_after(EVENTS)
    assert (now.state, now.pools) == ("COMPLETED", ())
    assert sum(now.trials.values()) == now.num_trials == 12


def test_a_log_without_an_end_that_nobody_writes_was_interrupted() -> None:
    watch, ledger = PoolWatch(), Ledger.of(EVENTS[:20])
    assert standing(ledger, watch, is_running=False).state == "INTERRUPTED"


def test_an_interruption_costs_nothing() -> None:
    spent = standing_after(EVENTS)
    resumed = standing_after(measured_sweep(SPEC, happening=Happening(resumed_at=frozenset({4}))))
    assert spent.cost == pytest.approx(2.5 * spent.node_hours)
    assert resumed.node_hours < spent.node_hours + 0.01, "ten hours lay between the two sessions"


def test_a_node_that_two_pools_share_counts_once() -> None:
    time = NodeTime()
    opened = [
        ev.PoolOpened(time_s=0.0, pool=name, base_key="k", num_seats=4, workers=2, attempt=0)
        for name in ("pool-0", "pool-1")
    ]
    for event in (*opened, ev.PoolClosed(time_s=3600.0, pool="pool-0"), ev.PoolClosed(time_s=7200.0, pool="pool-1")):
        time.apply(event)
    assert time.node_s == 7200.0
    assert time.cost(2.0) == 4.0


def test_a_frozen_weight_costs_four_operations_a_token() -> None:
    flops = training_flops(BASE, num_row_tokens=10, num_tokens=3)
    layers, output = 2 * 3_000, 64 * 16
    assert flops == 4 * (layers * 10 + output * 3)


def test_the_log_says_what_the_plan_said() -> None:
    ledger = Ledger.of(EVENTS)
    plan = LoggedPlan.of(ledger)
    assert (plan.sweep, plan.num_trials, plan.num_repeats) == ("simulated", 12, 0)
    full = ledger.trials[0].plan.num_clocks
    assert 0 < plan.expected_trial_clocks < 12 * full


def test_a_log_of_an_earlier_version_can_be_read() -> None:
    [event] = [event for event in EVENTS if isinstance(event, ev.RoundFinished)][:1]
    record = ev.event_to_json(event)
    for name in ("gather_s", "forward_s", "backward_s", "optimizer_s", "num_row_tokens", "num_flops", "memory"):
        del record[name]
    read = ev.event_from_json(record)
    assert isinstance(read, ev.RoundFinished)
    assert (read.gather_s, read.memory) == (0.0, ())
