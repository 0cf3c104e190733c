"""What a round's reports decide: who is stopped at a rung, and whose trial has come to its end. Pure.

All reports of a round are decided together, against all that the ledger holds of a rung, so that neither the order of
the reports nor the pool that they come from matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

from pharos.plan import events as ev
from pharos.plan.exchange import SeatReport
from pharos.plan.halving import decide
from pharos.plan.ledger import Ledger
from pharos.plan.metrics import EVAL_LOSS
from pharos.plan.sweep_plan import SweepPlan
from pharos.plan.trial import BASELINE, TrialState, repeat_of


def rungs_decided(ledger: Ledger, seats: Sequence[SeatReport], *, plan: SweepPlan, metric: str) -> list[ev.RungDecided]:
    """Halving over all trials that reached a rung in this round, together."""
    decided: list[ev.RungDecided] = []
    trials = ledger.trials
    losses = {seat.number: seat.eval_metrics.get(EVAL_LOSS, nan) for seat in seats}
    for rung in plan.rungs:
        arrivals = {
            seat.number: nan if seat.best_metric is None else seat.best_metric
            for seat in seats
            if seat.clocks == rung and _may_be_stopped(seat) and rung not in trials[seat.number].rungs
        }
        if not arrivals:
            continue
        decisions = decide(
            arrivals,
            ledger.rung_places.get(rung, ()),
            losses=losses,
            rung=rung,
            metric=metric,
            reduction_factor=plan.reduction_factor,
            exempt=frozenset({BASELINE}),
        )
        decided += [
            ev.RungDecided(
                number=decision.number,
                rung=rung,
                score=arrivals[decision.number],
                rank=decision.rank,
                compared=decision.compared,
                stopped=decision.stopped,
                reason=decision.reason,
                eval_loss=losses[decision.number],
            )
            for decision in decisions
        ]
    return decided


def end_of(
    seat: SeatReport, decided: Sequence[ev.RungDecided], stops: Mapping[int, str]
) -> tuple[TrialState, str] | None:
    """The final state of a seat's trial and why, if this round ended it. stops: reasons by trial to be stopped."""
    if seat.diverged is not None:
        return TrialState.DIVERGED, seat.diverged
    if seat.done:
        return TrialState.COMPLETED, "trained to its full length"
    if seat.number in stops:
        return TrialState.STOPPED, stops[seat.number]
    stopped = next((d for d in decided if d.number == seat.number and d.stopped), None)
    return None if stopped is None else (TrialState.PRUNED, f"rung {stopped.rung}: {stopped.reason}")


def _may_be_stopped(seat: SeatReport) -> bool:
    """Whether halving has a say: not over trials that end anyway, nor over repeats."""
    return not seat.done and seat.diverged is None and repeat_of(seat.number) is None
