"""One frame of the live view: header, seats, leaderboard, recent lines. A function of the state, the size and now."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pharos.console.narration import Line, narrate
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.standing import LoggedPlan
from pharos.plan.sweep_plan import SweepPlan
from pharos.plan.trial import BASELINE, TrialState

NUM_LEADERS = 5
NUM_RECENT = 8
MIN_RECENT = 2
NUM_ROUNDS_IN_RATE = 20
BAR_WIDTH = 10
WIDE = 110
"""Columns from which the seats show their trials' hyperparameters."""


@dataclass(slots=True, kw_only=True)
class LiveState:
    """What the view knows. started_s: time of this session's first event; rounds: the last ones, for throughput."""

    plan: SweepPlan | LoggedPlan
    entered_s: float
    ledger: Ledger = field(default_factory=Ledger)
    phase: str = ""
    started_s: float | None = None
    recent: deque[Line] = field(default_factory=lambda: deque(maxlen=NUM_RECENT))
    rounds: deque[ev.RoundFinished] = field(default_factory=lambda: deque(maxlen=NUM_ROUNDS_IN_RATE))
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def take(self, events: Sequence[ev.Event]) -> list[Line]:
        """Take the next events in, and return them as lines."""
        for event in events:
            if isinstance(event, ev.SweepStarted):
                self.started_s = event.time_s
                self.rounds.clear()
            elif isinstance(event, ev.RoundFinished):
                self.rounds.append(event)
        lines = narrate(self.ledger, events)
        self.recent.extend(line for line in lines if not line.is_in_tables)
        return lines

    def per_second(self, amounts: Sequence[int]) -> float:
        """What the last rounds did a second. amounts: of each of `rounds`; the first only marks the beginning."""
        if len(self.rounds) < 2 or self.rounds[-1].time_s <= self.rounds[0].time_s:
            last = self.rounds[-1] if self.rounds else None
            seconds = last.clocks_s + last.evaluation_s + last.checkpoint_s + last.exchange_s if last else 0.0
            return amounts[-1] / seconds if seconds else 0.0
        return sum(amounts[1:]) / (self.rounds[-1].time_s - self.rounds[0].time_s)


def live_view(state: LiveState, *, width: int, height: int, now_s: float) -> RenderableType:
    """The frame, at most `height` lines of `width` columns."""
    if not state.ledger.trials:
        state._spinner.update(text=Text(state.phase, overflow="ellipsis", no_wrap=True))
        return Group(_title(state, width=width, now_s=now_s), state._spinner)
    leaders = _leaders(state.ledger)
    num_places = sum(pool.num_seats for pool in state.ledger.open_pools.values())
    free_lines = height - 2 - (2 + len(leaders))  # without the header and the leaderboard under its empty line
    num_seats = min(num_places, max(1, free_lines - 2 - (1 + MIN_RECENT)))
    if num_seats < num_places:
        num_seats = max(1, num_seats - 1)  # one line says how many more there are
    parts: list[RenderableType] = [_title(state, width=width, now_s=now_s), _work(state)]
    if num_places:
        parts += [Text(), _seats(state, num_seats=num_seats, width=width)]
        free_lines -= 2 + num_seats + (num_seats < num_places)
    parts += [Text(), _leaderboard(leaders, state.ledger.metric)]
    if free_lines > 1:
        parts += [Text(), *(_recent(state, line) for line in list(state.recent)[-(free_lines - 1) :])]
    return Group(*parts)


def _title(state: LiveState, *, width: int, now_s: float) -> Text:
    ledger, num_trials = state.ledger, state.plan.num_trials
    done = ledger.num_finished
    elapsed = words.duration(now_s - state.entered_s)
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(state.plan.sweep, style="bold")
    if ledger.trials:
        title.append("  ").append_text(_bar(done / num_trials, width=max(4, min(24, width - 60))))
        title.append(f"  {done} of {words.plural(num_trials, 'trial')}")
    title.append(f"  {elapsed}", style="dim")
    left_s = _seconds_left(state)
    if left_s is not None:
        title.append(f", about {words.duration(left_s)} left", style="dim")
    return title


def _work(state: LiveState) -> Text:
    states = [trial.state for trial in state.ledger.records()]
    running, stopped = states.count(TrialState.RUNNING), states.count(TrialState.PRUNED)
    tokens_per_s = state.per_second([event.num_tokens for event in state.rounds]) if state.rounds else 0.0
    told = [f"{running} training", f"{stopped} stopped early"]
    if tokens_per_s:
        told += [f"{words.count(tokens_per_s)} trained tokens/s", f"seats {state.ledger.totals.occupancy:.0%} used"]
    if state.ledger.repeats:
        done = sum(trial.state.is_final for trial in state.ledger.repeats.values())
        told.append(f"confirming: {done} of {words.plural(len(state.ledger.repeats), 'repeat')}")
    if not running and state.phase:
        told.append(state.phase)
    return Text("  ".join(told), style="dim", no_wrap=True, overflow="ellipsis")


def _seats(state: LiveState, *, num_seats: int, width: int) -> RenderableType:
    table = _table("seat", "trial", "state", "step", "loss", "eval", "best", *(["chosen"] if width >= WIDE else []))
    seated = {(t.pool, t.seat): t for t in state.ledger.records() if t.state == TrialState.RUNNING}
    places = [
        (pool, seat) for pool, opened in sorted(state.ledger.open_pools.items()) for seat in range(opened.num_seats)
    ]
    metric = state.ledger.metric
    for pool, seat in places[:num_seats]:
        trial = seated.get((pool, seat))
        if trial is None:
            table.add_row(str(seat), words.NOTHING, Text("free", style="dim"))
            continue
        last = trial.evaluations[max(trial.evaluations)] if trial.evaluations else {}
        cells: list[str | Text] = [
            str(seat),
            _trial(trial.number),
            str(trial.state),
            _steps(trial),
            words.score(trial.last_loss),
            words.metric(metric, last.get(metric)),
            words.metric(metric, trial.score),
        ]
        table.add_row(*cells, *([_chosen(words.params(trial.plan.params), style="dim")] if width >= WIDE else []))
    more = len(places) - num_seats
    return table if more <= 0 else Group(table, Text(f"and {words.plural(more, 'more seat')}", style="dim"))


def _leaders(ledger: Ledger) -> list[tuple[int, TrialRecord]]:
    """The best trials with their ranks, the baseline among them wherever it stands."""
    ranking = list(enumerate(ledger.ranking(), start=1))
    leaders, others = ranking[:NUM_LEADERS], ranking[NUM_LEADERS:]
    baseline = [(rank, trial) for rank, trial in others if trial.number == BASELINE]
    return leaders[: NUM_LEADERS - len(baseline)] + baseline


def _leaderboard(leaders: Sequence[tuple[int, TrialRecord]], metric: str) -> Table:
    table = _table("rank", "trial", "best", "state", "at step", "chosen")
    for rank, trial in leaders:
        is_baseline = trial.number == BASELINE
        table.add_row(
            str(rank),
            _trial(trial.number),
            Text(words.metric(metric, trial.score), style="green" if rank == 1 else ""),
            Text(str(trial.state), style="" if trial.state == TrialState.RUNNING else "dim"),
            str(trial.best_step),
            _chosen(
                ("baseline: " if is_baseline else "") + words.params(trial.plan.params),
                style="cyan" if is_baseline else "dim",
            ),
        )
    return table


def _recent(state: LiveState, line: Line) -> Text:
    since_s = line.time_s - (state.started_s if state.started_s is not None else line.time_s)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{words.duration(since_s)}  ", style="dim")
    return text.append(line.text, style="red" if line.is_bad else "")


def _seconds_left(state: LiveState) -> float | None:
    """From the clocks that are left and the rate of the last rounds; none before the first round has ended."""
    rate = state.per_second([event.live_seat_clocks for event in state.rounds]) if state.rounds else 0.0
    running = [trial for trial in state.ledger.records() if trial.state == TrialState.RUNNING]
    if not rate or state.ledger.ended or not running:
        return None
    # The slowest trial that is seated bounds it from below: it advances one clock of the pool at a time.
    longest = max(trial.plan.num_clocks - trial.clocks for trial in running) * len(running)
    expected = state.plan.expected_trial_clocks - state.ledger.totals.live_seat_clocks
    expected += state.plan.repeat_clocks
    return max(expected, longest if _all_seated(state) else 0, 0) / rate


def _all_seated(state: LiveState) -> bool:
    waiting = sum(trial.state == TrialState.WAITING for trial in state.ledger.records())
    wanted = state.plan.num_trials + state.plan.num_repeats
    return not waiting and len(state.ledger.trials) + len(state.ledger.repeats) >= wanted


def _steps(trial: TrialRecord) -> Text:
    bar = _bar(trial.step / trial.plan.num_steps, width=BAR_WIDTH)
    return bar.append(f" {trial.step}/{trial.plan.num_steps}")


def _bar(share: float, *, width: int) -> Text:
    filled = min(width, int(share * width))
    return Text().append("━" * filled, style="green").append("─" * (width - filled), style="dim")


def _trial(number: int) -> Text:
    return Text(words.short_trial(number), style="cyan" if number == BASELINE else "")


def _chosen(text: str, *, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _table(*names: str) -> Table:
    """A table without lines, whose cells are cut rather than broken; `chosen` before all others."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in names:
        right = name in ("seat", "rank", "loss", "eval", "best", "at step")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "chosen", overflow="ellipsis")
    return table
