"""The loop of a pool: rounds of clocks, evaluation, checkpoints, and an exchange with whoever gives the orders.

It knows neither Ray nor the desk: settings, base, bank, data, ranks and the exchange are arguments, so it runs under
Ray, under torchrun and in a plain test.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pharos.plan.exchange import Orders, RoundReport, RoundTimes, ScoreReport, SeatReport
from pharos.plan.metrics import EVAL_LOSS, place
from pharos.plan.pool import PoolSettings
from pharos.train.checkpoint import Progress
from pharos.train.clocks import RoundLog, train_round
from pharos.train.evaluation import mean_losses
from pharos.train.generation import Questions, answer_metrics, open_questions
from pharos.train.group import Group
from pharos.train.measure import worker_memory
from pharos.train.open_pool import Pool
from pharos.train.seats import Seated, Worker, admit, discard_old_checkpoints, evict, open_worker, save_moved, score

TIMED_PARTS = ("gather", "forward", "backward", "optimizer")
"""Parts of a clock that RoundTimes names; the making of batches is what they leave."""
LOOK_UP_S = 1.0
"""How long a pool works, about, between two looks at whether it has to end its round at once."""


def run_pool(
    *,
    settings: PoolSettings,
    pool: Pool,
    group: Group,
    exchange: Callable[[RoundReport], Orders],
    is_hurried: Callable[[], bool] = lambda: False,
    on_clock: Callable[[], None] = lambda: None,
) -> None:
    """Train what `exchange` orders until it says close. All ranks call this; `exchange` and `is_hurried` are called on
    rank 0 alone, `on_clock` on every rank after each clock.

    The first report is empty, and so is one after a round without live seats: the exchange may then wait for trials.
    All ranks obey the same orders in the same order, so that they run the same collectives. is_hurried: whether the
    round is to end now, in the middle: its trials are saved as they are and evaluated where they would have been.
    """
    worker = open_worker(settings, pool, group)
    worker.on_clock = on_clock
    questions = _questions(settings)
    report, clock_s = _empty_report(settings), 0.0
    while True:
        started = time.monotonic()
        orders = group.broadcast_object(exchange(report) if group.rank == 0 else None)
        exchange_s = time.monotonic() - started
        discard_old_checkpoints(worker)
        for eviction in orders.evict:
            evict(worker, eviction)
        for admission in orders.admit:
            admit(worker, admission)
        if orders.close:
            return
        scores = score(worker, orders.score)

        started = time.monotonic()
        clocks, clock_s = round_clocks(worker, clock_s)
        look_up_every = max(1, int(LOOK_UP_S / clock_s)) if clock_s else 1
        log = train_round(
            worker,
            clocks,
            is_hurried=is_hurried,
            look_up_every=look_up_every,
            timed=report.round % max(1, clocks),  # each place of a round in turn
        )
        clock_s = log.clock_s
        trained = time.monotonic()
        evaluations = evaluate_due(worker, questions) if clocks > 0 else {}
        evaluated = time.monotonic()
        log.checkpoint_bytes = save_moved(worker)
        times = RoundTimes(
            clocks_s=trained - started,
            evaluation_s=evaluated - trained,
            checkpoint_s=time.monotonic() - evaluated,
            exchange_s=exchange_s,
            **{f"{part}_s": log.parts_s.get(part, 0.0) for part in TIMED_PARTS},
        )
        report = gather_report(worker, log, evaluations, scores, times=times, number=report.round + 1)


def round_clocks(worker: Worker, clock_s: float) -> tuple[int, float]:
    """Clocks of the next round, and seconds of one in the last round; both the same on all ranks.

    A round ends where the first live trial is due for an evaluation, after `report_every` clocks unless its pool was
    left in the middle of a round; or before that, when every trial ends.
    """
    live = [seated for seated in worker.seated.values() if seated.is_live]
    every = worker.settings.report_every
    due = min((every - seated.progress.clocks % every for seated in live), default=every)
    longest = max((seated.clocks_left for seated in live), default=0)
    told = worker.group.all_gather_objects((due, longest, clock_s))
    dues, longests, seconds = zip(*told, strict=True)
    return min(*dues, max(longests)), max(seconds)


def evaluate_due(worker: Worker, questions: Questions | None) -> dict[int, dict[str, float]]:
    """Metrics by local seat of the trials that are due, in one fused pass; updates their best.

    Due are those that trained in this round and have ended, or done a multiple of `report_every` clocks. Answers are
    generated for those that have reached a rung or their end.
    """
    every = worker.settings.report_every
    seats = [
        seat
        for seat, seated in sorted(worker.seated.items())
        if seated.moved and seated.diverged is None and (seated.is_done or seated.progress.clocks % every == 0)
    ]
    # A pass takes the whole base through every rank, and one that is hurried has no time for nothing.
    if not any(worker.group.all_gather_objects(bool(seats))):
        return {}
    losses = mean_losses(
        worker.pool.data["eval"],
        seats,
        base=worker.pool.base,
        bank=worker.pool.bank,
        group=worker.group,
        micro_batch_size=worker.settings.micro_batch_size,
        split_rows=worker.is_split,
    )
    evaluations = {seat: {EVAL_LOSS: loss} for seat, loss in zip(seats, losses, strict=True)}
    for seat, metrics in _answers(worker, questions, seats).items():
        evaluations[seat] |= metrics
    for seat, metrics in evaluations.items():
        if worker.settings.metric in metrics:
            _keep_best(worker.seated[seat].progress, metrics, worker.settings)
    return evaluations


def _keep_best(progress: Progress, metrics: dict[str, float], settings: PoolSettings) -> None:
    score, loss = metrics[settings.metric], metrics[EVAL_LOSS]
    is_best = progress.best_metric is None or (
        place(settings.metric, score, loss) < place(settings.metric, progress.best_metric, progress.best_loss)
    )
    if math.isfinite(score) and (is_best or settings.metric_scope == "last"):
        progress.best_metric, progress.best_loss, progress.best_step = score, loss, progress.step
        progress.best_checkpoint = progress.checkpoint_name


def _questions(settings: PoolSettings) -> Questions | None:
    if settings.generation is None:
        return None
    return open_questions(settings.generation, data_dir=Path(settings.data_dir), base_dir=Path(settings.base_dir))


def _answers(worker: Worker, questions: Questions | None, seats: Sequence[int]) -> dict[int, dict[str, float]]:
    """Metrics of generated answers by local seat; a pass in which no rank has anything to ask is left out."""
    if questions is None:
        return {}
    asked = [seat for seat in seats if worker.seated[seat].is_done or _is_at_rung(worker.seated[seat], worker.settings)]
    if not any(worker.group.all_gather_objects(bool(asked))):
        return {}
    metrics = answer_metrics(
        questions,
        asked,
        base=worker.pool.base,
        bank=worker.pool.bank,
        group=worker.group,
        split_rows=worker.is_split,
    )
    return dict(zip(asked, metrics, strict=True))


def _is_at_rung(seated: Seated, settings: PoolSettings) -> bool:
    return seated.progress.clocks in settings.rungs


def gather_report(
    worker: Worker,
    log: RoundLog,
    evaluations: dict[int, dict[str, float]],
    scores: Sequence[ScoreReport],
    *,
    times: RoundTimes,
    number: int,
) -> RoundReport:
    """What all ranks did in a round; times are rank 0's, and exchange_s is of the exchange before the round."""
    own = (log, _seat_reports(worker, log, evaluations), worker_memory(worker))
    logs = worker.group.all_gather_objects(own)
    return RoundReport(
        pool=worker.settings.pool,
        round=number,
        clocks=log.clocks,
        live_seat_clocks=sum(log.live_seat_clocks for log, *_ in logs),
        num_tokens=sum(log.num_tokens for log, *_ in logs),
        num_row_tokens=sum(log.num_row_tokens for log, *_ in logs),
        num_padded_tokens=sum(log.num_padded_tokens for log, *_ in logs),
        checkpoint_bytes=sum(log.checkpoint_bytes for log, *_ in logs),
        memory=tuple(memory for *_, memory in logs),
        times=times,
        seats=tuple(seat for _, seats, *_ in logs for seat in seats),
        scores=tuple(scores),
    )


def _seat_reports(worker: Worker, log: RoundLog, evaluations: dict[int, dict[str, float]]) -> list[SeatReport]:
    if not worker.writes:
        return []
    reports = []
    for seat, seated in sorted(worker.seated.items()):
        progress, number = seated.progress, seated.trial.number
        reports.append(
            SeatReport(
                number=number,
                seat=worker.first_seat + seat,
                step=progress.step,
                clocks=progress.clocks,
                steps=tuple(log.steps.get(seat, ())),
                eval_metrics=evaluations.get(seat, {}),
                best_metric=progress.best_metric,
                best_step=progress.best_step,
                best_checkpoint=worker.place.called(number, progress.best_checkpoint),
                checkpoint=worker.place.called(number, seated.saved),
                done=seated.is_done,
                diverged=seated.diverged,
            )
        )
    return reports


def _empty_report(settings: PoolSettings) -> RoundReport:
    """What the first exchange carries."""
    return RoundReport(
        pool=settings.pool,
        round=0,
        clocks=0,
        live_seat_clocks=0,
        num_tokens=0,
        num_padded_tokens=0,
        times=RoundTimes(),
    )
