"""Which seat is where, which is free, and who takes it next. Pure.

Seats are numbered over the whole pool: slot k of rank w is seat w * seats_per_worker + k.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatPlace:
    rank: int
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTrial:
    """A trial without a seat. resumed: it has trained before, and its checkpoint waits for it."""

    number: int
    base_key: str
    resumed: bool = False


def seat_place(seat: int, *, seats_per_worker: int) -> SeatPlace:
    return SeatPlace(rank=seat // seats_per_worker, slot=seat % seats_per_worker)


def seat_number(place: SeatPlace, *, seats_per_worker: int) -> int:
    return place.rank * seats_per_worker + place.slot


def free_seats(taken: Collection[int], *, num_seats: int, seats_per_worker: int) -> list[int]:
    """The free seats, in the order in which to fill them: the worker with the fewest trials first.

    All workers advance in lockstep, so a clock takes as long as it takes the fullest of them.
    """
    live = dict.fromkeys(range(-(-num_seats // seats_per_worker)), 0)
    for seat in taken:
        live[seat // seats_per_worker] += 1
    free, order = sorted(set(range(num_seats)) - set(taken)), []
    while free:
        seat = min(free, key=lambda seat: (live[seat // seats_per_worker], seat))
        free.remove(seat)
        live[seat // seats_per_worker] += 1
        order.append(seat)
    return order


def next_waiting(waiting: Iterable[WaitingTrial], *, base_key: str) -> WaitingTrial | None:
    """The trial that takes a pool's next free seat: of its base key, resumed trials first, then by number."""
    own = [trial for trial in waiting if trial.base_key == base_key]
    return min(own, key=lambda trial: (not trial.resumed, trial.number), default=None)
