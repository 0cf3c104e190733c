"""Kills what a sweep consists of, one thing at a time, and says what that cost: trials, steps, numbers of a curve.

Kinds: a worker of a pool, a node with its raylet, the controller of a pool, the desk, the driver. What is lost is put
back as an operator or a cloud would: a node by another one, a command that ended by the same command.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from tests.support.ray_cluster import RayCluster
from tests.support.small_sweep import (
    Alone,
    Workplace,
    kill,
    prepared_rows,
    spec_fields,
    steps_of,
    train_alone,
    wait_until,
)

from pharos.plan.events import Event, TrialCreated, TrialEnded, TrialReported, TrialSeated
from pharos.plan.exchange import StepMetrics
from pharos.plan.ledger import Ledger
from pharos.spec.load import load_spec

KINDS = ("worker", "node", "controller", "desk", "driver")
TITLES = {"worker": "RayTrainWorker", "controller": "TrainController", "desk": "ray::Desk"}
"""How Ray names the processes; a driver and a node are processes that were started here."""
NUM_TRIALS, NUM_STEPS, REPORT_EVERY = 12, 40, 8
ONE_POOL_OVER_TWO_NODES = {"workers": 2, "seats_per_worker": 2, "sharding": "zero3", "count": 1}
TWO_POOLS = {"workers": 1, "seats_per_worker": 2, "count": 2}
PATIENCE_S = 300
MAX_SESSIONS = 12


def sections_for_kills(pool: Mapping[str, Any]) -> dict[str, Any]:
    """Twelve trials without halving, at rates at which a curve reproduces itself; batches of two clocks and of four."""
    search = spec_fields()["search"] | {"num_trials": NUM_TRIALS, "halving": {"enabled": False}}
    search["space"] = search["space"] | {
        "optim.learning_rate": {"log_uniform": [1e-3, 1e-2]},
        "train.batch_size": {"choice": [8, 16]},
    }
    return {
        "search": search,
        "train": {"max_steps": NUM_STEPS, "batch_size": 8, "micro_batch_size": 4, "report_every": REPORT_EVERY},
        "optim": spec_fields()["optim"] | {"learning_rate": 2e-3},
        "test": {"generate": False},
        "register": {"enabled": False},
        "pool": {"max_restarts": 10, **pool},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """What to kill, how many rounds after the last kill was over, and how many seconds after that."""

    what: str
    after_rounds: int
    delay_s: float


def seeded_kills(number: int, seed: int) -> list[Kill]:
    """Each kind as often as any other, in an order of its own."""
    draw = random.Random(seed)
    kinds = [KINDS[index % len(KINDS)] for index in range(number)]
    draw.shuffle(kinds)
    return [Kill(what=kind, after_rounds=draw.randint(1, 6), delay_s=draw.uniform(0, 1.0)) for kind in kinds]


@dataclass(slots=True, kw_only=True)
class Killed:
    """A kill that happened. back_s: until what was killed worked again; none: nothing was left to do.

    ended: exit code and last words of the command, where the kill made it end, and num_said the lines that it said.
    """

    kill: Kill
    at_event: int
    trials_running: int
    back_s: float | None = None
    ended: str | None = None
    num_said: int = 0


class Session:
    """One run of the command. What it says is read as it comes: a pipe that nobody reads would hold it up."""

    def __init__(self, place: Workplace) -> None:
        self.process = place.start("sweep")
        self._said: tuple[str, str] = ("", "")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return None if self._reader.is_alive() else self.process.returncode

    @property
    def said(self) -> str:
        return self._said[0] + self._said[1]

    def _read(self) -> None:
        self._said = self.process.communicate()


@dataclass(slots=True, kw_only=True)
class KilledSweep:
    """A sweep that was run to its end through its kills."""

    place: Workplace
    cluster: RayCluster
    kills: list[Killed] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    def run(self, kills: Sequence[Kill]) -> None:
        """Raises AssertionError where the sweep cannot be brought to its end."""
        self._start()
        for planned in kills:
            wanted = self._rounds() + planned.after_rounds
            self._wait_for(lambda wanted=wanted: self._rounds() >= wanted, "no further round")
            if self._is_over():
                break
            self._kill(planned)
        self._wait_for(lambda: self.sessions[-1].returncode == 0, "the command does not end", or_over=False)

    def _start(self) -> None:
        assert len(self.sessions) < MAX_SESSIONS, f"the same command did not bring it to its end: {self.kills}"
        self.sessions.append(Session(self.place))

    def _kill(self, planned: Kill) -> None:
        wait_s(planned.delay_s)
        # Trials of one length end together, and a kill between two trainings would prove nothing.
        self._wait_for(lambda: self._num_running() > 0, "no trial runs")
        ledger, running = self.place.ledger(), self._num_running()
        killed = Killed(kill=planned, at_event=ledger.next_sequence, trials_running=running)
        began_s = monotonic()
        if planned.what == "driver":
            kill(self.sessions[-1].process.pid)
        elif planned.what == "node":
            nodes = [name for name in self.cluster.nodes if self._workers_of(name)] or list(self.cluster.nodes)
            self.cluster.lose_node(sorted(nodes)[0])
            self.cluster.add_node()
        else:
            victims = self.place.processes(TITLES[planned.what])
            if not victims:
                return
            kill(sorted(victims)[0])
        self.kills.append(killed)
        self._wait_for(lambda: self._is_back_after(killed), "no pool came back")
        if self._is_back_after(killed):
            killed.back_s = round(monotonic() - began_s, 1)

    def _workers_of(self, node: str) -> bool:
        pids = {process.pid for process in self.cluster.processes_of(node)}
        return bool(pids & set(self.place.processes(TITLES["worker"])))

    def _wait_for(self, condition: Callable[[], bool], complaint: str, *, or_over: bool = True) -> None:
        """Until it holds, or all trials are final. A command that ends meanwhile with an error is given again."""

        def is_there() -> bool:
            if self.sessions[-1].returncode not in (None, 0):
                self._note_end(self.sessions[-1])
                self._start()
            return (or_over and self._is_over()) or condition()

        wait_until(is_there, f"{complaint}: {self.kills}", timeout_s=PATIENCE_S)

    def _is_back_after(self, killed: Killed) -> bool:
        """Whether what was killed works again: a pool that came has finished a round, or the desk has written one."""
        kinds = [event.kind for event in self.place.events()[killed.at_event :]]
        if killed.kill.what == "desk":
            return "round_finished" in kinds
        return "pool_opened" in kinds and "round_finished" in kinds[kinds.index("pool_opened") :]

    def _note_end(self, session: Session) -> None:
        (self.place.root / f"session-{len(self.sessions)}.log").write_text(session.said)
        if self.kills and self.kills[-1].ended is None:
            lines = [line for line in session.said.splitlines() if line.strip()]
            self.kills[-1].ended = f"{session.returncode}: {' / '.join(lines[-2:])[:300]}"
            self.kills[-1].num_said = len(lines)

    def _num_running(self) -> int:
        return sum(trial.state == "RUNNING" for trial in self.place.ledger().trials.values())

    def _rounds(self) -> int:
        return self.place.ledger().totals.rounds if self.place.paths.events.is_dir() else 0

    def _is_over(self) -> bool:
        if not self.place.paths.events.is_dir():
            return False
        trials = self.place.ledger().trials.values()
        return len(trials) == NUM_TRIALS and all(trial.state.is_final for trial in trials)


def wait_s(seconds: float) -> None:
    """So that a kill falls into the middle of a round, not on its report."""
    until_s = monotonic() + seconds
    wait_until(lambda: monotonic() >= until_s, "unreachable", timeout_s=seconds + 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What all kills of one sweep cost. lost: trials without an end; duplicated: with two, or created twice.

    repeated: the most steps of one trial that the log has again after one loss. behind: the most steps by which a trial
    was seated behind what the log had of it. apart: by trial, the largest difference of any number of any step, the
    repeated ones too, and of any evaluation, from the same trial trained alone.
    """

    lost: int
    duplicated: int
    repeated: int
    behind: int
    apart: tuple[float, ...]


def cost_of(place: Workplace, *, scratch: Path, known: dict[str, Alone]) -> Cost:
    """Read the log of a sweep that has ended. known: curves of trials alone, by their values; new ones are added."""
    events = place.events()
    ends = Counter(event.number for event in events if isinstance(event, TrialEnded))
    created = Counter(event.number for event in events if isinstance(event, TrialCreated))
    return Cost(
        lost=sum(ends[number] == 0 for number in range(NUM_TRIALS)),
        duplicated=sum(max(ends[number], created[number]) > 1 for number in range(NUM_TRIALS)),
        repeated=most_repeated(events),
        behind=most_behind(events),
        apart=curves_apart(place, events, scratch=scratch, known=known),
    )


def most_repeated(events: Sequence[Event]) -> int:
    seen: Counter[int] = Counter()
    again: Counter[int] = Counter()
    most = 0
    for event in events:
        if isinstance(event, TrialSeated):
            again[event.number] = 0
        if isinstance(event, TrialReported):
            again[event.number] += sum(step["step"] <= seen[event.number] for step in event.steps)
            seen[event.number] = max([seen[event.number], *(step["step"] for step in event.steps)])
            most = max(most, again[event.number])
    return most


def most_behind(events: Sequence[Event]) -> int:
    ledger, most = Ledger(), 0
    for event in events:
        if isinstance(event, TrialSeated):
            most = max(most, ledger.record(event.number).step - event.resumed_step)
        ledger.apply(event)
    return most


def curves_apart(
    place: Workplace, events: Sequence[Event], *, scratch: Path, known: dict[str, Alone]
) -> tuple[float, ...]:
    spec, ledger = load_spec(place.spec), Ledger.of(events)
    apart = []
    for number, record in sorted(ledger.trials.items()):
        what = str(sorted(asdict(record.plan.hyperparameters).items()))
        if what not in known:
            known[what] = train_alone(
                spec,
                record.plan,
                base=place.root / "base",
                data=prepared_rows(place.paths.storage),
                trials=scratch / f"alone-{len(known)}",
                report_every=REPORT_EVERY,
            )
        alone, steps = known[what], steps_of(events, number)
        assert {step["step"] for step in steps} == set(range(1, len(alone.steps) + 1)), f"steps of trial {number}"
        differences = [_difference(step, alone.steps[step["step"] - 1]) for step in steps]
        for at, metrics in record.evaluations.items():
            differences.append(abs(metrics["eval_loss"] - alone.evaluations[at]))
        apart.append(max(differences))
    return tuple(apart)


def _difference(step: dict[str, Any], alone: StepMetrics) -> float:
    """Of losses and learning rates absolute; of gradient norms, which may be large, relative to those above 1."""
    return max(
        abs(step["loss"] - alone.loss),
        abs(step["learning_rate"] - alone.learning_rate),
        abs(step["grad_norm"] - alone.grad_norm) / max(1.0, alone.grad_norm),
    )
