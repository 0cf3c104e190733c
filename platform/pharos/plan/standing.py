"""How a sweep stands now, as a fold over its events: what `pharos top` shows and the metrics tell. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from pharos.errors import PlanError
from pharos.plan import events as ev
from pharos.plan.budget import expected_trial_clocks, report_every, rungs
from pharos.plan.confirmation import num_contenders
from pharos.plan.cost import NodeTime
from pharos.plan.ledger import Ledger
from pharos.plan.trial import BASELINE, TrialState
from pharos.spec.model import SweepSpec

NUM_ROUNDS = 20
"""Last rounds of a pool, over which its rates are taken."""
CLOCK_PARTS = ("gather", "forward", "backward", "optimizer", "batch")


def seconds_by_part(event: ev.RoundFinished) -> dict[str, float]:
    """Seconds of a round, each counted once; `batch` is what the parts of its clocks leave."""
    clocks = {
        "gather": event.gather_s,
        "forward": event.forward_s,
        "backward": event.backward_s,
        "optimizer": event.optimizer_s,
    }
    rest = {
        "batch": max(0.0, event.clocks_s - sum(clocks.values())),
        "evaluation": event.evaluation_s,
        "checkpoint": event.checkpoint_s,
        "exchange": event.exchange_s,
    }
    return clocks | rest


def token_kinds(event: ev.RoundFinished) -> dict[str, int]:
    """Positions of a round's clocks: trained on, read as context, pads. A log of an earlier version has no context."""
    rows = max(event.num_row_tokens, event.num_tokens)
    return {
        "trained": event.num_tokens,
        "context": rows - event.num_tokens,
        "pad": max(0, event.num_padded_tokens - rows),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedPlan:
    """What a log says of the whole sweep. expected_trial_clocks: 0 until its first trial exists."""

    sweep: str
    num_trials: int
    num_repeats: int
    expected_trial_clocks: int = 0
    repeat_clocks: int = 0

    @classmethod
    def of(cls, ledger: Ledger) -> LoggedPlan:
        """Raises ValueError where the log has no beginning yet, or holds a spec of another version."""
        if ledger.started is None:
            raise ValueError("the log is empty")
        spec = SweepSpec.model_validate(ledger.started.spec)
        confirm = spec.search.confirm if spec.search else None
        num_trials = ledger.started.num_trials
        repeats = 0 if confirm is None else num_contenders(confirm, num_trials) * confirm.seeds
        if BASELINE not in ledger.trials:
            return cls(sweep=ledger.started.sweep, num_trials=num_trials, num_repeats=repeats)
        baseline = ledger.trials[BASELINE].plan
        try:
            decided_at = rungs(spec, baseline, report_every=report_every(spec, baseline))
        except PlanError as error:
            raise ValueError(str(error)) from error
        clocks = expected_trial_clocks(
            num_trials=num_trials,
            num_clocks=baseline.num_clocks,
            rungs=decided_at,
            reduction_factor=spec.search.halving.reduction_factor if spec.search else 1,
        )
        return cls(
            sweep=ledger.started.sweep,
            num_trials=num_trials,
            num_repeats=repeats,
            expected_trial_clocks=clocks,
            repeat_clocks=repeats * baseline.num_clocks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStanding:
    """An open pool over its last rounds. shares: of its time, by part. memory_bytes: of its largest worker, resident.

    flops_per_s: of clocks alone; peak_share: of the peak that the spec states, none where it states none.
    """

    pool: str
    workers: int
    seats: int
    taken: int
    occupancy: float = 0.0
    clocks_per_s: float = 0.0
    trained_tokens_per_s: float = 0.0
    pad_share: float = 0.0
    flops_per_s: float = 0.0
    peak_share: float | None = None
    memory_bytes: int = 0
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A sweep as a whole. best: number of the best trial; cost: none where the spec names no price."""

    sweep: str
    state: str
    num_trials: int
    trials: dict[str, int]
    metric: str
    best: int | None
    best_score: float | None
    baseline_score: float | None
    pools_lost: int
    node_hours: float
    cost: float | None
    pools: tuple[PoolStanding, ...]


@dataclass(slots=True, kw_only=True)
class PoolWatch:
    """What a ledger does not keep: the open pools as they opened, their last rounds, the time of their nodes.

    asked: names of pools that are not up yet. avoided: ids of nodes on which pools failed again and again.
    """

    opened: dict[str, ev.PoolOpened] = field(default_factory=dict)
    rounds: dict[str, deque[ev.RoundFinished]] = field(default_factory=dict)
    node_time: NodeTime = field(default_factory=NodeTime)
    asked: set[str] = field(default_factory=set)
    avoided: set[str] = field(default_factory=set)

    def apply(self, event: ev.Event) -> None:
        self.node_time.apply(event)
        match event:
            case ev.SweepStarted() | ev.SweepEnded():
                for kept in (self.opened, self.rounds, self.asked, self.avoided):
                    kept.clear()
            case ev.PoolRequested():
                self.asked.add(event.pool)
            case ev.NodeAvoided():
                self.avoided.add(event.node)
            case ev.PoolOpened():
                self.asked.discard(event.pool)
                self.opened[event.pool] = event
                self.rounds[event.pool] = deque(maxlen=NUM_ROUNDS)
            case ev.PoolLost() | ev.PoolClosed():
                self.asked.discard(event.pool)
                self.opened.pop(event.pool, None)
                self.rounds.pop(event.pool, None)
            case ev.RoundFinished() if event.pool in self.rounds:
                self.rounds[event.pool].append(event)


def pool_standings(watch: PoolWatch, ledger: Ledger, *, peak_flops_per_worker: float | None) -> list[PoolStanding]:
    """Of every open pool, by name."""
    taken = [trial.pool for trial in ledger.records() if trial.state == TrialState.RUNNING]
    return [
        _pool_standing(opened, watch.rounds[name], taken=taken.count(name), peak_flops_per_worker=peak_flops_per_worker)
        for name, opened in sorted(watch.opened.items())
    ]


def _pool_standing(
    opened: ev.PoolOpened, rounds: Iterable[ev.RoundFinished], *, taken: int, peak_flops_per_worker: float | None
) -> PoolStanding:
    parts: dict[str, float] = {}
    tokens: dict[str, int] = {}
    clocks = live = seat_clocks = 0
    flops = 0.0
    memory = 0
    for event in rounds:
        for part, seconds in seconds_by_part(event).items():
            parts[part] = parts.get(part, 0.0) + seconds
        for kind, number in token_kinds(event).items():
            tokens[kind] = tokens.get(kind, 0) + number
        clocks, live = clocks + event.clocks, live + event.live_seat_clocks
        seat_clocks += event.clocks * event.num_seats
        flops += event.num_flops
        memory = max((worker["host"] for worker in event.memory), default=0)
    total_s = sum(parts.values())
    if not total_s:
        return PoolStanding(pool=opened.pool, workers=opened.workers, seats=opened.num_seats, taken=taken)
    clocks_s = sum(parts[part] for part in CLOCK_PARTS)
    flops_per_s = flops / clocks_s if clocks_s else 0.0
    return PoolStanding(
        pool=opened.pool,
        workers=opened.workers,
        seats=opened.num_seats,
        taken=taken,
        occupancy=live / max(1, seat_clocks),
        clocks_per_s=clocks / total_s,
        trained_tokens_per_s=tokens["trained"] / total_s,
        pad_share=tokens["pad"] / max(1, sum(tokens.values())),
        flops_per_s=flops_per_s,
        peak_share=None if peak_flops_per_worker is None else flops_per_s / (peak_flops_per_worker * opened.workers),
        memory_bytes=memory,
        shares={part: seconds / total_s for part, seconds in parts.items()},
    )


def standing(ledger: Ledger, watch: PoolWatch, *, is_running: bool = True) -> Standing:
    """The whole. is_running: whether somebody still turns it, which a log without an end does not say.

    Raises ValueError where the log is empty.
    """
    if ledger.started is None:
        raise ValueError("the log is empty")
    pool = ledger.started.spec.get("pool", {})
    price, peak = pool.get("price_per_node_hour"), pool.get("peak_tflops_per_worker")
    states = [trial.state for trial in ledger.trials.values()]
    best, baseline = ledger.best(), ledger.trials.get(BASELINE)
    return Standing(
        sweep=ledger.started.sweep,
        state=ledger.ended.state if ledger.ended else "RUNNING" if is_running else "INTERRUPTED",
        num_trials=ledger.started.num_trials,
        trials={str(state): states.count(state) for state in TrialState},
        metric=ledger.metric,
        best=None if best is None else best.number,
        best_score=None if best is None else best.score,
        baseline_score=None if baseline is None or not _is_score(baseline.score) else baseline.score,
        pools_lost=ledger.restarts,
        node_hours=watch.node_time.node_s / 3600,
        cost=None if price is None else watch.node_time.cost(price),
        pools=tuple(pool_standings(watch, ledger, peak_flops_per_worker=None if peak is None else peak * 1e12)),
    )


def _is_score(score: Any) -> bool:
    return isinstance(score, float) and isfinite(score)
