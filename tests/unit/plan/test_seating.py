"""Seats, their places, and whose turn it is."""

from __future__ import annotations

from pharos.plan.seating import WaitingTrial, free_seats, next_waiting, seat_number, seat_place


def test_a_seat_and_its_place_name_each_other() -> None:
    for seats_per_worker in (1, 3, 4):
        for seat in range(12):
            place = seat_place(seat, seats_per_worker=seats_per_worker)
            assert 0 <= place.slot < seats_per_worker
            assert seat_number(place, seats_per_worker=seats_per_worker) == seat


def test_free_seats_fill_the_emptiest_worker_first() -> None:
    assert free_seats([], num_seats=8, seats_per_worker=4) == [0, 4, 1, 5, 2, 6, 3, 7]
    assert free_seats([0, 1, 2, 4], num_seats=8, seats_per_worker=4) == [5, 6, 3, 7]
    assert free_seats(range(8), num_seats=8, seats_per_worker=4) == []


def test_resumed_trials_come_first_and_then_the_lowest_number() -> None:
    queue = [
        WaitingTrial(number=3, base_key="a"),
        WaitingTrial(number=9, base_key="a", resumed=True),
        WaitingTrial(number=7, base_key="a", resumed=True),
        WaitingTrial(number=1, base_key="b", resumed=True),
    ]
    taken = []
    while (trial := next_waiting(queue, base_key="a")) is not None:
        queue.remove(trial)
        taken.append(trial.number)
    assert taken == [7, 9, 3]
    assert [trial.number for trial in queue] == [1]
