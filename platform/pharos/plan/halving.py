"""Who goes on at a rung. Pure: the decision depends on the scores of a round, never on the order of its reports.

Asynchronous successive halving (Li et al., 2020, arXiv:1810.05934) decides at each report alone, so that trials in
lockstep are judged by the order in which they happen to be read. Here a whole round is ranked at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from pharos.plan.metrics import EVAL_LOSS, Place, place


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a rung decided about one trial. rank counts from 1 (best) among `compared` scores."""

    number: int
    rank: int
    compared: int
    stopped: bool
    reason: str


def decide(
    arrivals: Mapping[int, float],
    earlier: Sequence[Place],
    *,
    reduction_factor: int,
    exempt: frozenset[int],
    rung: int | None = None,
    metric: str = EVAL_LOSS,
    losses: Mapping[int, float] | None = None,
) -> list[Decision]:
    """Decide about all trials that reached a rung in this round, by number.

    arrivals: score by trial number, of `metric`, which says whether lower is better; earlier: the places of scores of
    that rung from earlier rounds, ascending. All of them are ranked together, and an arrival goes on if it is among the
    best ceil(n / reduction_factor) of all n. It takes the logarithm of n for each arrival.
    NaN ranks last. Of equal scores the earlier round's comes first, then the lower trial number. A trial alone at a
    rung goes on, and so do the trials in `exempt`, whatever their rank. rung: its clocks, to be named in the reason.
    losses: eval losses beside the scores, which tell equal shares apart.
    """
    places = {number: place(metric, score, (losses or {}).get(number)) for number, score in arrivals.items()}
    order = sorted(places, key=lambda number: (places[number], number))
    compared = len(earlier) + len(order)
    num_going_on = ceil(compared / reduction_factor)
    decisions = []
    for number in sorted(arrivals):
        rank = bisect_right(earlier, places[number]) + order.index(number) + 1
        is_among_best = rank <= num_going_on
        decisions.append(
            Decision(
                number=number,
                rank=rank,
                compared=compared,
                stopped=not is_among_best and number not in exempt,
                reason=f"{arrivals[number]:.4g} is {_ordinal(rank)} of {compared}"
                + (f" at {rung} clocks; " if rung is not None else "; ")
                + ("the best goes on" if num_going_on == 1 else f"the best {num_going_on} go on")
                + (", and the baseline in any case" if not is_among_best and number in exempt else ""),
            )
        )
    return decisions


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return str(number) + {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
