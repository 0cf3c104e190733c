"""Moving the champion: a crash at any call, a lost race, a process that stood still. One whole champion every time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.failing_client import Crash, FailingClient
from tests.support.memory_registry import MemoryRegistry

from pharos.track.champion import HISTORY, Lost, Move, history, move_champion, settle
from pharos.track.mlflow_client import connect
from pharos.track.turns import INTENT, WATCH_S, Place, TurnLost, Waiting, turn_at

MODEL = "docker"
GONE = replace(Place.own(), pid=2**22 + 1)
"""A process of this machine that does not exist: the kernel gives no such number."""


def with_versions(client: Any) -> Any:
    """A registry with four versions and no champion."""
    client.create_registered_model(MODEL)
    for _ in range(4):
        client.create_model_version(MODEL, source="file:///nowhere")
    return client


@pytest.fixture
def client() -> Any:
    return with_versions(MemoryRegistry())


@pytest.fixture(params=["memory", "sqlite"])
def any_client(request: pytest.FixtureRequest) -> Any:
    return with_versions(
        MemoryRegistry() if request.param == "memory" else connect(request.getfixturevalue("store_uri"))
    )


def aliases(client: Any) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(MODEL).aliases.items()}


def move(client: Any, to: str, expected: str | None, **keywords: Any) -> tuple[Move, list[str]]:
    return move_champion(client, MODEL, kind="promote", to=to, expected=expected, why="lower loss", **keywords)


def left(client: Any) -> list[str]:
    return [key for key in client.get_registered_model(MODEL).tags if key.startswith(INTENT)]


def dying(client: Any, alias_write: int) -> FailingClient:
    """A client that dies after its n-th write of an alias: where there is a champion, 0 is `previous` and 1 is it."""
    return FailingClient(client, at=alias_write, after=True, only="set_registered_model_alias")


def test_the_first_champion_has_no_previous_and_the_second_has(any_client: Any) -> None:
    client = any_client
    move(client, "1", None)
    assert aliases(client) == {"champion": "1"}
    moved, settled = move(client, "2", "1", forced=True)
    assert aliases(client) == {"champion": "2", "previous": "1"}
    assert (moved.before, moved.forced, settled, left(client)) == ("1", True, [], [])
    tags = client.get_model_version(MODEL, "2").tags
    assert tags["pharos.promoted.by"] == moved.who
    assert tags["pharos.promoted.at"] == moved.when
    assert (tags["pharos.promoted.why"], tags["pharos.promoted.from"]) == ("lower loss", "1")
    assert tags["pharos.promoted.how"] == "forced"
    assert [entry.to for entry in history(client.get_registered_model(MODEL).tags)] == ["1", "2"]


def test_a_champion_that_moved_meanwhile_is_named_and_stays(any_client: Any) -> None:
    client = any_client
    move(client, "1", None)
    move(client, "2", "1")
    with pytest.raises(Lost, match=r"version 3 is not the champion.*then \(version 1\).*now version 2, by .*@"):
        move(client, "3", "1")
    assert aliases(client) == {"champion": "2", "previous": "1"}
    assert left(client) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_whatever_call_a_promotion_dies_at_the_next_command_settles_it(client: Any, after: bool) -> None:
    move(client, "1", None)
    move(client, "2", "1")
    champion, previous, num_finished = "2", "1", 0
    at = 0
    while True:
        to = "3" if champion != "3" else "4"
        failing = FailingClient(client, at=at, after=after)
        try:
            move(failing, to, champion, waiting=Waiting(place=GONE))
        except Crash:
            assert aliases(client)["champion"] in (champion, to)
            said = settle(client, MODEL)
            now = aliases(client)
            assert left(client) == []
            assert now in ({"champion": champion, "previous": previous}, {"champion": to, "previous": champion})
            assert len(said) <= 1
            if now["champion"] == to:
                champion, previous, num_finished = to, champion, num_finished + 1
                entries = history(client.get_registered_model(MODEL).tags)
                assert (entries[-1].to, entries[-1].before) == (champion, previous)
                assert client.get_model_version(MODEL, to).tags["pharos.promoted.from"] == previous
            at += 1
            continue
        break
    assert at > 15
    assert 1 <= num_finished < at - 5


def test_whatever_call_the_settling_dies_at_the_next_command_settles_both(client: Any) -> None:
    move(client, "1", None)
    move(client, "2", "1")
    for dies_at, expected in ((0, {"champion": "2", "previous": "1"}), (1, {"champion": "3", "previous": "2"})):
        for at in range(40):
            with pytest.raises(Crash):
                move(dying(client, dies_at), "3", "2", waiting=Waiting(place=GONE))
            try:
                settle(FailingClient(client, at=at, after=True), MODEL, waiting=Waiting(place=GONE))
            except Crash:
                settle(client, MODEL)
            else:
                break
            finally:
                assert aliases(client) == expected
                assert left(client) == []
                client.set_registered_model_alias(MODEL, "champion", "2")
                client.set_registered_model_alias(MODEL, "previous", "1")
        assert 5 < at < 39


def test_a_promotion_settles_what_another_left_before_it_compares(any_client: Any) -> None:
    client = any_client
    move(client, "1", None)
    with pytest.raises(Crash):
        move(dying(client, 0), "2", "1", waiting=Waiting(place=GONE))
    assert aliases(client) == {"champion": "1", "previous": "1"}
    _, settled = move(client, "3", "1")
    assert len(settled) == 1
    assert "version 2" in settled[0]
    assert "taken back" in settled[0]
    assert aliases(client) == {"champion": "3", "previous": "1"}


def test_a_champion_moved_by_hand_after_a_crash_stays(client: Any) -> None:
    move(client, "1", None)
    with pytest.raises(Crash):
        move(dying(client, 0), "2", "1", waiting=Waiting(place=GONE))
    client.set_registered_model_alias(MODEL, "champion", "4")
    assert "left as it is" in settle(client, MODEL)[0]
    assert aliases(client)["champion"] == "4"
    assert left(client) == []


class Clock:
    """Time that passes only where someone sleeps; `meanwhile` is called each time."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now_s, self.meanwhile = 1000.0, meanwhile

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += 10 * seconds
        self.meanwhile()


def test_of_a_process_elsewhere_that_stands_still_the_turn_is_taken_after_the_watch(client: Any) -> None:
    move(client, "1", None)
    with pytest.raises(Crash):
        move(dying(client, 1), "2", "1", waiting=Waiting(place=replace(Place.own(), host="elsewhere")))
    clock = Clock()
    _, settled = move(client, "3", "2", waiting=Waiting(place=Place.own(), clock=clock, sleep=clock.sleep))
    assert WATCH_S < clock.now_s - 1000 < WATCH_S + 10
    assert "it is finished now" in settled[0]
    assert aliases(client) == {"champion": "3", "previous": "2"}


def test_a_process_elsewhere_that_beats_is_waited_for(client: Any) -> None:
    with turn_at(client, MODEL, waiting=Waiting(place=replace(Place.own(), host="elsewhere"))) as turn:
        clock = Clock(turn.beat)

        def end() -> None:
            turn.beat()
            if clock.now_s > 1000 + 3 * WATCH_S:
                turn.leave()

        clock.meanwhile = end
        with turn_at(client, MODEL, waiting=Waiting(place=Place.own(), clock=clock, sleep=clock.sleep)) as other:
            assert other.left == []
            assert clock.now_s > 1000 + 3 * WATCH_S


def test_a_process_that_stood_still_writes_no_more(client: Any) -> None:
    clock = Clock()
    waiting = Waiting(place=Place.own(), clock=clock, sleep=clock.sleep)
    with turn_at(client, MODEL, waiting=waiting) as turn:
        clock.now_s += 60
        with pytest.raises(TurnLost, match="stood still for 60 s"):
            turn.write(lambda: client.set_registered_model_alias(MODEL, "champion", "1"))
    assert aliases(client) == {}


def test_a_process_taken_for_dead_notices(client: Any) -> None:
    with turn_at(client, MODEL) as first:
        clock = Clock()

        def meanwhile() -> None:
            own = [key for key in left(client) if key != first.intent.key]
            if own:
                client.delete_registered_model_tag(MODEL, own[0])

        clock.meanwhile = meanwhile
        waiting = Waiting(place=Place.own(), clock=clock, sleep=clock.sleep)
        with pytest.raises(TurnLost, match="took this one for dead"), turn_at(client, MODEL, waiting=waiting):
            pytest.fail("it is not alone")


@pytest.mark.parametrize("_", range(5))
def test_of_many_threads_one_wins_and_the_others_say_so(_: int) -> None:
    client = with_versions(MemoryRegistry(delay_s=0.005))
    move(client, "1", None)
    outcomes: list[str] = []
    start = threading.Barrier(20)

    def promote(to: str) -> None:
        start.wait()
        try:
            move(client, to, "1")
            outcomes.append("won")
        except Lost as error:
            outcomes.append(error.message)

    threads = [threading.Thread(target=promote, args=(str(2 + number % 3),)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("won") == 1
    assert sum("another command came first" in outcome for outcome in outcomes) == 19
    assert aliases(client)["previous"] == "1"
    assert left(client) == []
    assert len([key for key in client.get_registered_model(MODEL).tags if key.startswith(HISTORY)]) == 2
