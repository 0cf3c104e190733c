"""The pools of a sweep as plain values: places, failures, nodes."""

from __future__ import annotations

from pharos.sweep.pool_board import FAILURES_TO_AVOID, OpenPool, PoolBoard

TWO = {"a": 1, "b": 1}
"""Nodes with room for one worker each."""


def a_board(*, max_pools: int = 3, max_restarts: int = 1) -> PoolBoard:
    return PoolBoard(max_pools=max_pools, max_restarts=max_restarts)


def opened(board: PoolBoard, name: str, *nodes: str) -> OpenPool:
    pool = OpenPool("key", len(nodes) or 1, 2, board.attempts[name], nodes)
    board.opened(name, pool)
    return pool


def test_pools_are_asked_for_once_and_taken_back_when_they_are_not_wanted_any_more() -> None:
    board = a_board()
    assert board.staffing(2).open == ("pool-0", "pool-1")
    assert board.staffing(2).open == ()
    opened(board, "pool-0", "a")
    assert board.staffing(1).cancel == ("pool-1",)
    assert board.staffing(2).open == ("pool-2",), "the launcher of pool-1 has not ended"
    board.ended("pool-1")
    assert board.staffing(3).open == ("pool-1",)


def test_a_pool_that_leaves_is_replaced_at_another_place_while_it_still_runs() -> None:
    board = a_board()
    board.staffing(1)
    pool = opened(board, "pool-0", "a")
    pool.leaving = "node a is being drained"
    assert board.staffing(1).open == ("pool-1",)


def test_a_place_is_given_up_after_so_many_failures_in_a_row_and_then_all_is_lost() -> None:
    board = a_board()
    for is_hopeless in (False, True):
        board.staffing(1)
        opened(board, "pool-0", "a")
        board.ended("pool-0")
        board.failed("pool-0", "no space left", ["a"], places={"a": 1}, workers=1)
        assert (board.hopeless() is not None) == is_hopeless
    assert board.hopeless() == "no space left"


def test_a_finished_round_lets_a_place_begin_anew() -> None:
    board = a_board()
    for _ in range(5):
        board.staffing(1)
        opened(board, "pool-0", "a")
        board.worked("pool-0")
        board.ended("pool-0")
        board.failed("pool-0", "a spot node went", ["a"], places={"a": 1}, workers=1)
    assert board.hopeless() is None


def test_while_another_pool_works_nothing_is_hopeless() -> None:
    board = a_board(max_restarts=0)
    board.staffing(2)
    opened(board, "pool-1", "b")
    board.ended("pool-0")
    board.failed("pool-0", "no space left", ["a"], places=TWO, workers=1)
    assert board.hopeless() is None
    assert board.staffing(2).open == ("pool-2",), "its place is left empty"


def test_a_node_is_avoided_after_so_many_failures_but_never_the_last_one() -> None:
    board = a_board(max_restarts=99)
    avoided = [board.failed("pool-0", "it broke", ["a"], places=TWO, workers=1) for _ in range(FAILURES_TO_AVOID + 1)]
    assert avoided == [[], [], ["a"], []]
    assert board.staffing(1).avoided == ("a",)
    assert [board.failed("pool-0", "it broke", ["b"], places=TWO, workers=1) for _ in range(4)] == [
        [],
        [],
        [],
        [],
    ]


def test_a_node_is_not_avoided_where_the_others_have_no_room_for_a_pool() -> None:
    board = a_board(max_restarts=99)
    places = {"head": 0, "a": 2, "b": 1}
    assert [board.failed("pool-0", "it broke", ["a"], places=places, workers=2) for _ in range(4)] == [[], [], [], []]
    assert board.failed("pool-0", "it broke", ["a"], places=places | {"c": 1}, workers=2) == ["a"]
