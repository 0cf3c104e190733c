"""The state of a sweep as a fold over its events: what resume, console, result.json and the search read.

Pure: `Ledger.apply` takes one event and changes only the ledger itself. Nothing here reads a file or a clock.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import isfinite

from pharos.plan import events as ev
from pharos.plan.metrics import EVAL_LOSS, Place, place
from pharos.plan.trial import TrialPlan, TrialState, repeat_of


@dataclass(slots=True, kw_only=True)
class TrialRecord:
    """All that the log says of one trial. evaluations: eval metrics by optimizer step. rungs: score by rung."""

    plan: TrialPlan
    state: TrialState = TrialState.WAITING
    reason: str = ""
    pool: str | None = None
    seat: int | None = None
    step: int = 0
    clocks: int = 0
    num_tokens: int = 0
    last_loss: float | None = None
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    rungs: dict[int, float] = field(default_factory=dict)
    score: float | None = None
    best_step: int | None = None
    best_checkpoint: str | None = None
    checkpoint: str | None = None
    removed: bool = False
    """Whether its checkpoints were deleted, since others are better."""
    test_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.plan.number

    @property
    def best_loss(self) -> float | None:
        """eval_loss of the evaluation that scores it."""
        return None if self.best_step is None else self.evaluations.get(self.best_step, {}).get(EVAL_LOSS)


@dataclass(slots=True, kw_only=True)
class Totals:
    """Sums over all rounds of all pools."""

    rounds: int = 0
    clocks: int = 0
    live_seat_clocks: int = 0
    seat_clocks: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    clocks_s: float = 0.0
    evaluation_s: float = 0.0
    checkpoint_s: float = 0.0
    exchange_s: float = 0.0

    @property
    def occupancy(self) -> float:
        """Share of seats that trained, over all clocks."""
        return self.live_seat_clocks / self.seat_clocks if self.seat_clocks else 0.0


@dataclass(slots=True, kw_only=True)
class Ledger:
    """A sweep so far. `next_sequence` is the number of the next event to apply.

    trials: of the search, by number. repeats: trials again under further seeds, which take no part in the search.
    """

    next_sequence: int = 0
    started: ev.SweepStarted | None = None
    first_time_s: float | None = None
    last_time_s: float | None = None
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    repeats: dict[int, TrialRecord] = field(default_factory=dict)
    num_finished: int = 0
    """Trials of the search that have come to their end."""
    confirmation: ev.WinnerConfirmed | None = None
    decisions: list[ev.RungDecided] = field(default_factory=list)
    rung_places: dict[int, list[Place]] = field(default_factory=dict)
    """By rung the places of all scores that were compared there, ascending."""
    totals: Totals = field(default_factory=Totals)
    open_pools: dict[str, ev.PoolOpened] = field(default_factory=dict)
    most_pools: int = 0
    """How many were open at once, at most."""
    restarts: int = 0
    avoided_nodes: dict[str, str] = field(default_factory=dict)
    """Nodes that this session places no pool on, and why."""
    base_test_metrics: dict[str, float] = field(default_factory=dict)
    registered: ev.ModelRegistered | None = None
    ended: ev.SweepEnded | None = None

    @classmethod
    def of(cls, events: Iterable[ev.Event]) -> Ledger:
        ledger = cls()
        for event in events:
            ledger.apply(event)
        return ledger

    def apply(self, event: ev.Event) -> None:
        self.next_sequence = event.sequence + 1
        self.first_time_s = event.time_s if self.first_time_s is None else self.first_time_s
        self.last_time_s = event.time_s
        match event:
            case ev.SweepStarted():
                self.started, self.ended, self.confirmation = event, None, None
                self.open_pools.clear()
                self.avoided_nodes.clear()
                for trial in self.records():
                    _unseat(trial)
            case ev.PoolOpened():
                self.open_pools[event.pool] = event
                self.most_pools = max(self.most_pools, len(self.open_pools))
            case ev.PoolLost():
                self.open_pools.pop(event.pool, None)
                self.restarts += 1
                for number in event.trials:
                    _unseat(self.record(number))
            case ev.PoolClosed():
                self.open_pools.pop(event.pool, None)
            case ev.NodeAvoided():
                self.avoided_nodes[event.node] = event.reason
            case ev.TrialCreated():
                self._kind_of(event.number)[event.number] = TrialRecord(plan=TrialPlan.from_json(event.trial))
            case ev.TrialSeated():
                trial = self.record(event.number)
                trial.state, trial.pool, trial.seat = TrialState.RUNNING, event.pool, event.seat
            case ev.TrialUnseated():
                _unseat(self.record(event.number))
            case ev.TrialReported():
                _report(self.record(event.number), event)
            case ev.RungDecided():
                self.trials[event.number].rungs[event.rung] = event.score
                insort(self.rung_places.setdefault(event.rung, []), place(self.metric, event.score, event.eval_loss))
                self.decisions.append(event)
            case ev.TrialEnded():
                trial = self.record(event.number)
                self.num_finished += repeat_of(event.number) is None and not trial.state.is_final
                trial.state, trial.reason, trial.score = TrialState(event.state), event.reason, event.score
                trial.pool = trial.seat = None
            case ev.WinnerConfirmed():
                self.confirmation = event
            case ev.AdaptersRemoved():
                for number in event.numbers:
                    trial = self.trials[number]
                    trial.best_checkpoint, trial.checkpoint, trial.removed = None, None, True
            case ev.RoundFinished():
                _add_round(self.totals, event)
            case ev.TestScored():
                scored = self.base_test_metrics if event.number < 0 else self.trials[event.number].test_metrics
                scored.update(event.metrics)
            case ev.ModelRegistered():
                self.registered = event
            case ev.SweepEnded():
                self.ended = event

    @property
    def metric(self) -> str:
        """What ranks the trials."""
        return self.started.metric if self.started else EVAL_LOSS

    def record(self, number: int) -> TrialRecord:
        """A trial of the search, or a repeat of one. Raises KeyError where there is none."""
        return self._kind_of(number)[number]

    def records(self) -> Iterator[TrialRecord]:
        """Trials of the search, then repeats, each by number."""
        for kind in (self.trials, self.repeats):
            yield from (record for _, record in sorted(kind.items()))

    def unfinished(self) -> list[TrialRecord]:
        """Trials that a resume has to hand out again, repeats among them, by number."""
        return [trial for trial in self.records() if not trial.state.is_final]

    def ranking(self) -> list[TrialRecord]:
        """Trials with a finite score, best first; a tie goes to the lower number."""
        ranked = [
            (place(self.metric, trial.score, trial.best_loss), trial.number)
            for trial in self.trials.values()
            if trial.score is not None and isfinite(trial.score)
        ]
        return [self.trials[number] for _, number in sorted(ranked)]

    def best(self) -> TrialRecord | None:
        """The winner: the one that repeats confirmed, else the trial with the best score, however far it trained.

        Its kept adapter is that of its own best evaluation.
        """
        if self.confirmation is not None:
            return self.trials[self.confirmation.winner]
        ranking = self.ranking()
        return ranking[0] if ranking else None

    def _kind_of(self, number: int) -> dict[int, TrialRecord]:
        return self.trials if repeat_of(number) is None else self.repeats


def _unseat(trial: TrialRecord) -> None:
    if trial.state == TrialState.RUNNING:
        trial.state, trial.pool, trial.seat = TrialState.WAITING, None, None


def _report(trial: TrialRecord, event: ev.TrialReported) -> None:
    already = trial.step
    trial.num_tokens += sum(step["num_tokens"] for step in event.steps if step["step"] > already)
    trial.step, trial.clocks = max(trial.step, event.step), max(trial.clocks, event.clocks)
    if event.steps:
        trial.last_loss = event.steps[-1]["loss"]
    if event.eval_metrics:
        trial.evaluations[event.step] = event.eval_metrics
    trial.score, trial.best_step = event.best_metric, event.best_step
    trial.best_checkpoint, trial.checkpoint = event.best_checkpoint, event.checkpoint


def _add_round(totals: Totals, event: ev.RoundFinished) -> None:
    totals.rounds += 1
    totals.clocks += event.clocks
    totals.live_seat_clocks += event.live_seat_clocks
    totals.seat_clocks += event.clocks * event.num_seats
    totals.num_tokens += event.num_tokens
    totals.num_padded_tokens += event.num_padded_tokens
    totals.clocks_s += event.clocks_s
    totals.evaluation_s += event.evaluation_s
    totals.checkpoint_s += event.checkpoint_s
    totals.exchange_s += event.exchange_s
