"""The desk alone, as a plain asyncio object: who is seated, who goes on, what the log says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.fake_pool import NUM_CLOCKS, REPORT_EVERY, FakePool, a_desk, ledger_of, run

from pharos.plan.events import Event
from pharos.plan.exchange import Score, ScoreReport
from pharos.plan.trial import Repeat, TrialState
from pharos.sweep.desk import Desk
from pharos.track.event_log import EventLog


async def drive(desk: Desk, pool: FakePool, numbers: range) -> list[int]:
    """Play Ray Tune and the pool until all trials are final; returns the numbers in the order of their ends."""
    ended: list[int] = []

    async def proxy(queue: list[int]) -> None:
        while queue:
            number = queue.pop(0)
            await desk.admit(number, {"optim.learning_rate": 1e-4})
            while not (await desk.next_report(number))["done"]:
                pass
            ended.append(number)

    queue = list(numbers)
    proxies = [asyncio.create_task(proxy(queue)) for _ in range(pool.num_seats)]
    await asyncio.sleep(0)
    await pool.attach()
    while not all(task.done() for task in proxies):
        await pool.turn()
    return ended


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.past: list[Event] = []
        self.heard: list[Event] = []

    def begin(self, past: Sequence[Event]) -> None:
        self.past = list(past)

    def take(self, events: Sequence[Event]) -> None:
        self.heard += events


def a_scattered_metric(number: int, clocks: int) -> float:
    return (number * 7) % 5 + 1.0


def test_every_trial_runs_once_and_halving_stops_the_weak_but_never_the_baseline(tmp_path: Path) -> None:
    desk = a_desk(tmp_path)

    async def sweep() -> None:
        await desk.open(digests={}, versions={}, spec_json={})
        await drive(desk, FakePool(desk, lambda number, clocks: 10.0 - number), range(8))

    run(sweep())
    states = {number: trial.state for number, trial in ledger_of(tmp_path).trials.items()}
    assert sorted(states) == list(range(8))
    assert states[0] == TrialState.COMPLETED
    assert states[1] == TrialState.PRUNED
    assert states[7] == TrialState.COMPLETED
    ledger = ledger_of(tmp_path)
    assert ledger.best().number == 7
    assert all(trial.clocks == NUM_CLOCKS for trial in ledger.trials.values() if trial.state == TrialState.COMPLETED)
    assert "of 4 at 10 clocks" in ledger.trials[1].reason


def test_a_listener_hears_every_event_once_and_of_a_resume_what_was_before(tmp_path: Path) -> None:
    first, second = Ear(), Ear()
    desk = a_desk(tmp_path, listener=first)

    async def sweep() -> None:
        await desk.open(digests={}, versions={}, spec_json={})
        await drive(desk, FakePool(desk, a_scattered_metric), range(8))

    run(sweep())
    log = list(EventLog(tmp_path / "events").read())
    assert (first.past, first.heard) == ([], log)
    run(a_desk(tmp_path, listener=second).open(digests={}, versions={}, spec_json={}))
    assert second.past == log
    assert [event.kind for event in second.heard] == ["sweep_started"]


def test_decisions_do_not_depend_on_the_order_of_the_reports(tmp_path: Path) -> None:
    outcomes = []
    for order in (1, -1):
        desk = a_desk(tmp_path / str(order))

        async def sweep(desk: Desk = desk, order: int = order) -> None:
            pool = FakePool(desk, a_scattered_metric)
            pool.order = order
            await drive(desk, pool, range(8))

        run(sweep())
        trials = ledger_of(tmp_path / str(order)).trials
        outcomes.append({number: (trial.state, trial.reason) for number, trial in trials.items()})
    assert outcomes[0] == outcomes[1]


def test_a_diverged_trial_leaves_alone_and_its_seat_is_filled_again(tmp_path: Path) -> None:
    desk = a_desk(tmp_path)
    nan_at = {2: 10}

    async def sweep() -> None:
        pool = FakePool(desk, lambda number, clocks: float("nan") if nan_at.get(number) == clocks else 1.0 + number)
        await drive(desk, pool, range(8))

    run(sweep())
    trials = ledger_of(tmp_path).trials
    assert trials[2].state == TrialState.DIVERGED
    assert trials[2].reason == "loss is nan at step 7"
    assert [n for n, trial in trials.items() if trial.state == TrialState.DIVERGED] == [2]
    assert len(trials) == 8


def test_the_trials_of_a_pool_that_died_resume_from_their_checkpoints(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=4)

    async def sweep() -> None:
        for number in range(4):
            await desk.admit(number, {})
        pool = FakePool(desk, lambda number, clocks: 1.0)
        await pool.attach()
        await pool.turn()
        stale = pool.attempt
        await pool.attach()
        assert sorted(pool.live.values()) == [(0, 10), (1, 10)], "rung 10 stopped the other two before"
        assert (await desk.exchange(stale, pool.report())).close, "orders for an earlier start are void"

    run(sweep())
    ledger = ledger_of(tmp_path)
    assert ledger.restarts == 1
    assert [trial.state for trial in ledger.trials.values()] == [TrialState.RUNNING] * 2 + [TrialState.PRUNED] * 2


def test_a_second_session_goes_on_where_the_log_ends(tmp_path: Path) -> None:
    async def first_session() -> None:
        desk = a_desk(tmp_path, num_trials=6)
        for number in range(4):
            await desk.admit(number, {})
        pool = FakePool(desk, lambda number, clocks: 1.0 + number)
        await pool.attach()
        await pool.turn()

    run(first_session())
    before = ledger_of(tmp_path)
    finished = {number for number, trial in before.trials.items() if trial.state.is_final}
    assert finished == {2, 3}

    async def second_session() -> None:
        desk = a_desk(tmp_path, num_trials=6)
        await desk.open(digests={}, versions={}, spec_json={})
        pool = FakePool(desk, lambda number, clocks: 1.0 + number)
        for number in set(range(6)) - finished:
            await desk.admit(number, {})
        await pool.attach()
        assert (0, 10) in pool.live.values()
        while pool.live:
            await pool.turn()

    run(second_session())
    after = ledger_of(tmp_path)
    assert sorted(after.trials) == list(range(6))
    assert all(trial.state.is_final for trial in after.trials.values())
    assert {number: after.trials[number] for number in finished} == {n: before.trials[n] for n in finished}


def test_a_pool_that_is_gone_for_good_lets_its_proxies_go_and_leaves_its_trials_unfinished(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=4)

    async def sweep() -> list[dict[str, Any]]:
        for number in range(4):
            await desk.admit(number, {})
        pool = FakePool(desk, lambda number, clocks: 1.0, num_seats=2)
        await pool.attach()
        for _ in range(4):
            await desk.pool_ended("pool-0", "RuntimeError: no space left")
        return [await desk.next_report(number) for number in range(4)]

    results = run(sweep())
    assert all(result["done"] and result["state"] == "FAILED" for result in results)
    assert run(desk.failure()) == "RuntimeError: no space left"
    assert len(ledger_of(tmp_path).unfinished()) == 4


def test_stop_all_ends_running_and_waiting_trials_at_the_end_of_the_round(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=6)

    async def sweep() -> None:
        for number in range(6):
            await desk.admit(number, {})
        pool = FakePool(desk, lambda number, clocks: 1.0)
        await pool.attach()
        await desk.stop_all("a person asked")
        await pool.turn()
        assert pool.live == {}

    run(sweep())
    trials = ledger_of(tmp_path).trials.values()
    assert {(trial.state, trial.reason) for trial in trials} == {(TrialState.STOPPED, "a person asked")}


def test_scores_are_asked_of_the_pool_and_only_test_rows_become_events(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=1)

    async def sweep() -> list[ScoreReport]:
        pool = FakePool(desk, lambda number, clocks: 1.0)
        await desk.admit(0, {})
        await pool.attach()
        while pool.live:
            await pool.turn()
        wanted = [Score(number=-1, adapter=None, split="test"), Score(number=0, adapter="/a", split="test")]
        asking = asyncio.create_task(desk.score(wanted))
        await asyncio.sleep(0)
        while not asking.done():
            await pool.turn()
        await desk.send_home("over")
        assert (await pool.turn()).close
        return asking.result()

    assert [report.number for report in run(sweep())] == [-1, 0]
    ledger = ledger_of(tmp_path)
    assert ledger.base_test_metrics == ledger.trials[0].test_metrics == {"test_loss": 1.5}


def test_repeats_train_to_their_end_whatever_halving_says_and_have_no_proxy(tmp_path: Path) -> None:
    desk = a_desk(tmp_path)
    pool = FakePool(desk, a_scattered_metric)

    async def sweep() -> None:
        await desk.open(digests={}, versions={}, spec_json={})
        await drive(desk, pool, range(8))
        own = ledger_of(tmp_path).trials
        wanted = [replace(own[of].plan, number=Repeat(of, seed).number) for seed in (1, 2, 3) for of in (0, 1, 5)]
        repeating = asyncio.create_task(desk.repeat(wanted))
        await asyncio.sleep(0)
        while not repeating.done():
            await pool.turn()
        before = len(await desk.events_since(0))
        await desk.repeat(wanted)
        assert len(await desk.events_since(0)) == before, "finished repeats are kept"

    run(sweep())
    ledger = ledger_of(tmp_path)
    assert len(ledger.trials) == 8
    assert [record.state for record in ledger.repeats.values()] == [TrialState.COMPLETED] * 9
    assert {record.clocks for record in ledger.repeats.values()} == {NUM_CLOCKS}
    assert not [decision for decision in ledger.decisions if decision.number in ledger.repeats]


def test_repeats_of_a_pool_that_died_resume_and_are_finished(tmp_path: Path) -> None:
    desk = a_desk(tmp_path)
    pool = FakePool(desk, a_scattered_metric)

    async def sweep() -> None:
        await desk.open(digests={}, versions={}, spec_json={})
        await drive(desk, pool, range(8))
        plan = replace(ledger_of(tmp_path).trials[1].plan, number=Repeat(1, 1).number)
        repeating = asyncio.create_task(desk.repeat([plan]))
        await asyncio.sleep(0)
        await pool.turn()
        await pool.turn()
        assert ledger_of(tmp_path).record(plan.number).clocks == REPORT_EVERY
        await pool.attach()
        assert pool.live[0] == (plan.number, REPORT_EVERY)
        while not repeating.done():
            await pool.turn()

    run(sweep())
    [record] = ledger_of(tmp_path).repeats.values()
    assert (record.state, record.clocks) == (TrialState.COMPLETED, NUM_CLOCKS)
