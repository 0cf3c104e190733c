"""The desk with several pools: opened while trials wait, gathered when few are left, moved, lost and found again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.fake_pool import FakePool, a_desk, ledger_of, run

from pharos.plan.events import PoolClosed, PoolLost, SweepEnded, TrialEnded, TrialReported, TrialUnseated
from pharos.plan.exchange import Score, ScoreReport
from pharos.plan.trial import TrialState
from pharos.sweep.desk import Desk
from pharos.track.event_log import EventLog


def steady(number: int, clocks: int) -> float:
    """Every trial goes on at every rung: they are alike."""
    return 1.0


async def admit_all(desk: Desk, number: int) -> None:
    for trial in range(number):
        await desk.admit(trial, {})


async def staffed(desk: Desk, *draining: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    orders = await desk.staffing(places=dict.fromkeys("abc", 1), draining=dict.fromkeys(draining, 0.0))
    return orders.open, orders.cancel


def test_pools_are_asked_for_as_long_as_trials_would_wait(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=9, rungs=(), count={"min": 1, "max": 3})

    async def sweep() -> None:
        assert await staffed(desk) == (("pool-0", "pool-1", "pool-2"), ())
        assert await staffed(desk) == ((), ())
        assert await desk.num_seats() == 4, "nothing is up yet: the first pool will come"
        for name in ("pool-0", "pool-1"):
            await FakePool(desk, steady, name=name).attach()
        assert await desk.num_seats() == 8

    run(sweep())


def test_the_last_trials_are_gathered_in_one_pool_and_none_is_lost(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=6, rungs=(), count={"min": 1, "max": 2})

    async def sweep() -> None:
        await staffed(desk)
        await admit_all(desk, 6)
        first, second = (
            FakePool(desk, steady, name=name, node=node) for name, node in (("pool-0", "a"), ("pool-1", "b"))
        )
        await first.attach()
        await second.attach()
        assert (len(first.live), len(second.live)) == (4, 2)
        while first.live:
            await first.turn()
        # Two are left, and one pool can hold them: the emptier one goes.
        assert first.closed
        assert not second.closed
        while second.live:
            await second.turn()

    run(sweep())
    events = list(EventLog(tmp_path / "events").read())
    assert [event.number for event in events if isinstance(event, TrialEnded)] == list(range(6))
    assert [event.pool for event in events if isinstance(event, PoolClosed)] == ["pool-0"]


def test_the_trials_of_a_pool_that_closes_go_on_in_another_from_where_they_are(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=6, rungs=(), count={"min": 1, "max": 2})

    async def sweep() -> None:
        await staffed(desk)
        await admit_all(desk, 6)
        first, second = (FakePool(desk, steady, name=name) for name in ("pool-0", "pool-1"))
        await first.attach()
        await second.attach()
        await second.turn()
        for number in (0, 1):
            await desk.stop_trial(number, "a person asked")
        await first.turn()
        # Four are left for four seats: the two of the second pool move.
        assert (await second.turn()).close
        await first.turn()
        assert sorted(first.live.values()) == [(2, 20), (3, 20), (4, 20), (5, 20)]

    run(sweep())
    moved = [event for event in EventLog(tmp_path / "events").read() if isinstance(event, TrialUnseated)]
    assert [(event.number, event.pool) for event in moved] == [(4, "pool-1"), (5, "pool-1")]


def test_a_pool_on_a_node_that_is_drained_is_called_back_and_its_trials_move(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=4, rungs=(), count=2)

    async def sweep() -> None:
        await staffed(desk)
        await admit_all(desk, 2)
        pool = FakePool(desk, steady, node="b")
        await pool.attach()
        called = asyncio.create_task(desk.wanted_back("pool-0", pool.attempt))
        await asyncio.sleep(0.01)
        assert not called.done()
        await staffed(desk, "a")
        await asyncio.sleep(0.01)
        assert not called.done(), "another node is drained"
        await staffed(desk, "b")
        await asyncio.wait_for(called, 1)
        assert (await pool.turn()).close
        await desk.pool_ended("pool-0", None)
        assert (await staffed(desk, "b"))[0] == ("pool-0",)
        other = FakePool(desk, steady, name="pool-1", node="c")
        await other.attach()
        assert sorted(other.live.values()) == [(0, 10), (1, 10)]

    run(sweep())
    ledger = ledger_of(tmp_path)
    assert ledger.restarts == 0
    assert ledger.trials[0].state == TrialState.RUNNING


def test_a_pool_that_is_lost_costs_its_trials_their_seats_and_others_nothing(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=6, rungs=(), count=2)

    async def sweep() -> None:
        await staffed(desk)
        await admit_all(desk, 6)
        first, second = (FakePool(desk, steady, name=name, node=name[-1]) for name in ("pool-0", "pool-1"))
        await first.attach()
        await second.attach()
        await first.turn()
        await desk.pool_ended("pool-0", "ActorDiedError: its node went", ranks=(1,))
        assert (await first.turn()).close, "what is left of it has nothing more to say"
        await second.turn()
        assert sorted(second.live.values()) == [(0, 10), (1, 10), (4, 10), (5, 10)]
        assert (await staffed(desk))[0] == ("pool-0",)

    run(sweep())
    [lost] = [event for event in EventLog(tmp_path / "events").read() if isinstance(event, PoolLost)]
    assert (lost.trials, lost.nodes) == ((0, 1, 2, 3), ("0",))


def test_a_pause_sends_every_pool_home_with_its_trials_saved(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=4, rungs=())

    async def sweep() -> None:
        await staffed(desk)
        await admit_all(desk, 4)
        pool = FakePool(desk, steady)
        await pool.attach()
        called = asyncio.create_task(desk.wanted_back("pool-0", pool.attempt))
        await desk.send_home("the sweep was stopped", at_once=True)
        await asyncio.wait_for(called, 1)
        assert (await pool.turn()).close
        assert await staffed(desk) == ((), ())
        await desk.record(SweepEnded(state="STOPPED", reason="stopped by a person"))

    run(sweep())
    ledger = ledger_of(tmp_path)
    assert ledger.ended is not None
    assert ledger.ended.state == "STOPPED"
    assert {trial.state for trial in ledger.trials.values()} == {TrialState.WAITING}
    assert {trial.checkpoint for trial in ledger.trials.values()} == {f"/trials/{n}/step-10" for n in range(4)}


def test_a_desk_that_was_lost_comes_back_and_goes_on_with_the_pools_that_are_there(tmp_path: Path) -> None:
    async def sweep() -> None:
        desk = a_desk(tmp_path, num_trials=6, rungs=())
        await staffed(desk)
        await admit_all(desk, 4)
        pool = FakePool(desk, steady)
        await pool.attach()
        await pool.turn()

        pool.desk = desk = a_desk(tmp_path, num_trials=6, rungs=(), restarted=True)
        asked = [asyncio.create_task(desk.next_report(number)) for number in pool.numbers]
        await asyncio.sleep(0)
        await desk.admit(4, {})
        assert await staffed(desk) == ((), ())
        while pool.live:
            await pool.turn()
        assert [(await report)["clocks"] for report in asked] == [20] * 4

    run(sweep())
    events = list(EventLog(tmp_path / "events").read())
    assert sorted(event.number for event in events if isinstance(event, TrialEnded)) == list(range(5))
    assert not [event for event in events if isinstance(event, PoolLost)]


def test_a_report_that_got_no_answer_can_be_sent_again(tmp_path: Path) -> None:
    """The desk died after it had written the round and before its orders arrived."""

    async def sweep() -> None:
        desk = a_desk(tmp_path, num_trials=8, rungs=())
        await staffed(desk)
        await admit_all(desk, 6)
        pool = FakePool(desk, lambda number, clocks: float("nan") if (number, clocks) == (2, 10) else 1.0)
        await pool.attach()
        pool.advance()
        report = pool.report()
        await desk.exchange(pool.attempt, report)

        pool.desk = desk = a_desk(tmp_path, num_trials=8, rungs=(), restarted=True)
        await pool.obey(await desk.exchange(pool.attempt, report))
        assert sorted(pool.live.values()) == [(0, 10), (1, 10), (3, 10), (4, 0)]

    run(sweep())
    events = list(EventLog(tmp_path / "events").read())
    assert [event.number for event in events if isinstance(event, TrialEnded)] == [2]
    assert ledger_of(tmp_path).trials[0].num_tokens == 0
    assert len([event for event in events if isinstance(event, TrialReported) and event.number == 2]) == 1


def test_scores_that_a_lost_pool_was_to_make_are_made_by_another(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=1, rungs=(), count=2)

    async def sweep() -> list[ScoreReport]:
        first, second = (FakePool(desk, steady, name=name) for name in ("pool-0", "pool-1"))
        await first.attach()
        await second.attach()
        asking = asyncio.create_task(desk.score([Score(number=-1, adapter=None, split="test")]))
        await asyncio.sleep(0)
        await first.turn()
        assert len(first.scored) == 1
        await desk.pool_ended("pool-0", "it died")
        while not asking.done():
            await second.turn()
        return asking.result()

    [report] = run(sweep())
    assert report.metrics == {"test_loss": 1.5}


def test_no_pool_is_replaced_once_the_sweep_is_over(tmp_path: Path) -> None:
    desk = a_desk(tmp_path, num_trials=1, rungs=())

    async def sweep() -> None:
        pool = FakePool(desk, steady)
        await pool.attach()
        await desk.send_home("the sweep is over")
        assert (await pool.turn()).close
        await desk.pool_ended("pool-0", None)
        assert await staffed(desk) == ((), ())
        assert await desk.failure() is None

    run(sweep())
