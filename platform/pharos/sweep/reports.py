"""A round's reports in the words of others: as events for the log, and as results for Ray Tune and the search."""

from __future__ import annotations

from dataclasses import asdict
from math import nan
from typing import Any

from pharos.plan import events as ev
from pharos.plan.exchange import RoundReport, ScoreReport, SeatReport
from pharos.plan.facts import BaseFacts
from pharos.plan.flops import training_flops
from pharos.plan.ledger import TrialRecord
from pharos.plan.trial import TrialState


def reported(seat: SeatReport) -> ev.TrialReported:
    return ev.TrialReported(
        number=seat.number,
        step=seat.step,
        clocks=seat.clocks,
        steps=tuple(asdict(step) for step in seat.steps),
        eval_metrics=dict(seat.eval_metrics),
        best_metric=seat.best_metric,
        best_step=seat.best_step,
        best_checkpoint=seat.best_checkpoint,
        checkpoint=seat.checkpoint,
    )


def ended(seat: SeatReport, state: TrialState, reason: str) -> ev.TrialEnded:
    return ev.TrialEnded(number=seat.number, state=state, reason=reason, score=seat.best_metric, step=seat.step)


def scored(score: ScoreReport) -> ev.TestScored:
    return ev.TestScored(number=score.number, metrics=dict(score.metrics))


def finished(report: RoundReport, num_seats: int, base: BaseFacts) -> ev.RoundFinished:
    return ev.RoundFinished(
        pool=report.pool,
        round=report.round,
        clocks=report.clocks,
        live_seat_clocks=report.live_seat_clocks,
        num_seats=num_seats,
        num_tokens=report.num_tokens,
        num_padded_tokens=report.num_padded_tokens,
        num_row_tokens=report.num_row_tokens,
        checkpoint_bytes=report.checkpoint_bytes,
        num_flops=training_flops(base, num_row_tokens=report.num_row_tokens, num_tokens=report.num_tokens),
        memory=tuple(asdict(memory) for memory in report.memory),
        **asdict(report.times),
    )


def result_for_tune(record: TrialRecord, metric: str) -> dict[str, Any]:
    """A trial as Ray Tune and the search read it: the metric of its last evaluation, its score, and how it stands."""
    last = record.evaluations.get(record.step, {})
    return {
        "number": record.number,
        "clocks": record.clocks,
        "step": record.step,
        metric: last.get(metric, nan),
        "score": nan if record.score is None else record.score,
        "state": str(record.state),
        "done": record.state.is_final,
    }
