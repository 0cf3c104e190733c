"""The loop of a pool: rounds of clocks, evaluation, checkpoints, and an exchange with whoever gives the orders.

It knows neither Ray nor the desk: settings, base, bank, data, ranks and the exchange are arguments, so it runs under
Ray, under torchrun and in a plain test.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from pharos.plan.exchange import Orders, RoundReport, RoundTimes, ScoreReport, SeatReport
from pharos.plan.pool import PoolSettings
from pharos.train.clocks import RoundLog, train_round
from pharos.train.evaluation import mean_losses
from pharos.train.group import Group
from pharos.train.open_pool import Pool
from pharos.train.seats import Worker, admit, discard_old_checkpoints, evict, open_worker, save_moved, score


def run_pool(*, settings: PoolSettings, pool: Pool, group: Group, exchange: Callable[[RoundReport], Orders]) -> None:
    """Train what `exchange` orders until it says close. All ranks call this; `exchange` is called on rank 0 alone.

    The first report is empty, and so is one after a round without live seats: the exchange may then wait for trials.
    All ranks obey the same orders in the same order, so that they run the same collectives.
    """
    worker = open_worker(settings, pool, group)
    report = _empty_report(settings)
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
        clocks = round_clocks(worker)
        log = train_round(worker, clocks)
        trained = time.monotonic()
        evaluations = evaluate_moved(worker) if clocks > 0 else {}
        evaluated = time.monotonic()
        save_moved(worker)
        times = RoundTimes(
            clocks_s=trained - started,
            evaluation_s=evaluated - trained,
            checkpoint_s=time.monotonic() - evaluated,
            exchange_s=exchange_s,
        )
        report = gather_report(worker, log, evaluations, scores, clocks=clocks, times=times, number=report.round + 1)


def round_clocks(worker: Worker) -> int:
    """Clocks of the next round, the same on all ranks: `report_every`, or fewer when every trial ends before that."""
    longest = max((seated.clocks_left for seated in worker.seated.values()), default=0)
    return min(worker.settings.report_every, max(worker.group.all_gather_objects(longest)))


def evaluate_moved(worker: Worker) -> dict[int, float]:
    """eval_loss by local seat of the trials that trained in this round, in one fused pass; updates their best."""
    seats = [seat for seat, seated in sorted(worker.seated.items()) if seated.moved and seated.diverged is None]
    losses = mean_losses(
        worker.pool.data["eval"],
        seats,
        base=worker.pool.base,
        bank=worker.pool.bank,
        group=worker.group,
        micro_batch_size=worker.settings.micro_batch_size,
        split_rows=worker.is_split,
    )
    evaluations = dict(zip(seats, losses, strict=True))
    for seat, loss in evaluations.items():
        progress = worker.seated[seat].progress
        is_best = progress.best_metric is None or loss < progress.best_metric
        if math.isfinite(loss) and (is_best or worker.settings.metric_scope == "last"):
            progress.best_metric, progress.best_step = loss, progress.step
            progress.best_checkpoint = progress.checkpoint_name
    return evaluations


def gather_report(
    worker: Worker,
    log: RoundLog,
    evaluations: dict[int, float],
    scores: Sequence[ScoreReport],
    *,
    clocks: int,
    times: RoundTimes,
    number: int,
) -> RoundReport:
    """What all ranks did in a round; times are rank 0's, and exchange_s is of the exchange before the round."""
    logs = worker.group.all_gather_objects((log, _seat_reports(worker, log, evaluations)))
    return RoundReport(
        pool=worker.settings.pool,
        round=number,
        clocks=clocks,
        live_seat_clocks=sum(log.live_seat_clocks for log, _ in logs),
        num_tokens=sum(log.num_tokens for log, _ in logs),
        num_padded_tokens=sum(log.num_padded_tokens for log, _ in logs),
        times=times,
        seats=tuple(seat for _, seats in logs for seat in seats),
        scores=tuple(scores),
    )


def _seat_reports(worker: Worker, log: RoundLog, evaluations: dict[int, float]) -> list[SeatReport]:
    if not worker.writes:
        return []
    reports = []
    for seat, seated in sorted(worker.seated.items()):
        progress, directory = seated.progress, worker.directory(seated.trial.number)
        reports.append(
            SeatReport(
                number=seated.trial.number,
                seat=worker.first_seat + seat,
                step=progress.step,
                clocks=progress.clocks,
                steps=tuple(log.steps.get(seat, ())),
                eval_metrics={worker.settings.metric: evaluations[seat]} if seat in evaluations else {},
                best_metric=progress.best_metric,
                best_step=progress.best_step,
                best_checkpoint=str(directory / progress.best_checkpoint) if progress.best_checkpoint else None,
                checkpoint=str(directory / seated.saved) if seated.saved else None,
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
