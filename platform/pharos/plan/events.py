"""What happened, as frozen events. The desk emits them; the event log, MLflow and the console listen.

The event log is the record of truth: every other store can be rebuilt from it. Pure values and their JSON form.
An event's `time_s` is seconds since the epoch, `sequence` its place in the sweep's log, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    kind: ClassVar[str] = "event"
    time_s: float = 0.0
    sequence: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStarted(Event):
    """First event of a log, and again at each resume (then `resumed` is true).

    spec: the whole spec as JSON, defaults filled in. digests: of spec, data, base, tokenizer. versions: of libraries.
    root: the directory that the spec's relative paths are relative to; "" in a log that does not say.
    """

    kind: ClassVar[str] = "sweep_started"
    sweep: str
    spec: dict[str, Any]
    digests: dict[str, str]
    versions: dict[str, str]
    num_trials: int
    metric: str
    resumed: bool = False
    root: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRequested(Event):
    """Workers were asked of Ray, which may have to add nodes for them. avoided: ids of nodes that they must not use."""

    kind: ClassVar[str] = "pool_requested"
    pool: str
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOpened(Event):
    """The workers of a pool are up. attempt: how often it was opened before. nodes: Ray's ids of its ranks' nodes."""

    kind: ClassVar[str] = "pool_opened"
    pool: str
    base_key: str
    num_seats: int
    workers: int
    attempt: int
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLost(Event):
    """The pool's workers died; its trials went back to the queue. nodes: ids of those on which it began to fail."""

    kind: ClassVar[str] = "pool_lost"
    pool: str
    reason: str
    trials: tuple[int, ...]
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClosed(Event):
    """The pool was sent home; trials that still sat in it were unseated before."""

    kind: ClassVar[str] = "pool_closed"
    pool: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAvoided(Event):
    """Pools failed on this node again and again: no further one is placed there in this session."""

    kind: ClassVar[str] = "node_avoided"
    node: str
    failures: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCreated(Event):
    """A trial exists once this is in the log. `trial` is TrialPlan.to_json()."""

    kind: ClassVar[str] = "trial_created"
    number: int
    trial: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSeated(Event):
    """resumed_step: optimizer steps that its checkpoint already holds; 0 for a fresh start."""

    kind: ClassVar[str] = "trial_seated"
    number: int
    pool: str
    seat: int
    resumed_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialUnseated(Event):
    """A trial left its pool at the end of a round, with its checkpoint, and waits for a seat: in another pool, or in
    another session."""

    kind: ClassVar[str] = "trial_unseated"
    number: int
    pool: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialReported(Event):
    """One round of one trial. `steps` holds StepMetrics as plain dicts.

    checkpoint: what a resume starts from; best_*: the evaluation, and the adapter, that scores the trial.
    """

    kind: ClassVar[str] = "trial_reported"
    number: int
    step: int
    clocks: int
    steps: tuple[dict[str, Any], ...]
    eval_metrics: dict[str, float]
    best_metric: float | None
    best_step: int | None
    best_checkpoint: str | None
    checkpoint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RungDecided(Event):
    """Who went on at a rung, and why. rank counts from 1 (best) among `compared` scores of that rung.

    eval_loss: beside the score, which tells equal shares of right answers apart.
    """

    kind: ClassVar[str] = "rung_decided"
    number: int
    rung: int
    score: float
    rank: int
    compared: int
    stopped: bool
    reason: str
    eval_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded(Event):
    """state is the final TrialState; score the metric that ranks it, none where it has no finite evaluation."""

    kind: ClassVar[str] = "trial_ended"
    number: int
    state: str
    reason: str
    score: float | None
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WinnerConfirmed(Event):
    """The best trials and the baseline, repeated under the same further seeds, and who won on their average.

    winner: number of a trial of the search. seeds: `train.seed` of each repeat. contenders: `Contender.to_json()`.
    """

    kind: ClassVar[str] = "winner_confirmed"
    winner: int
    seeds: tuple[int, ...]
    contenders: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptersRemoved(Event):
    """The checkpoints of these trials, which are at their end, are deleted, or about to be. Their curves stay."""

    kind: ClassVar[str] = "adapters_removed"
    numbers: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFinished(Event):
    """One round of a pool: the numbers behind throughput, occupancy and the split of time, as RoundReport has them.

    num_flops: of its clocks (plan/flops.py). memory: WorkerMemory as plain dicts, by worker. A log of an earlier
    version lacks what has a default here.
    """

    kind: ClassVar[str] = "round_finished"
    pool: str
    round: int
    clocks: int
    live_seat_clocks: int
    num_seats: int
    num_tokens: int
    num_padded_tokens: int
    clocks_s: float
    evaluation_s: float
    checkpoint_s: float
    exchange_s: float
    gather_s: float = 0.0
    forward_s: float = 0.0
    backward_s: float = 0.0
    optimizer_s: float = 0.0
    num_row_tokens: int = 0
    num_flops: float = 0.0
    checkpoint_bytes: int = 0
    memory: tuple[dict[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestScored(Event):
    """Test rows were read, after the choice. number -1 is the untrained base."""

    __test__: ClassVar[bool] = False
    kind: ClassVar[str] = "test_scored"
    number: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRegistered(Event):
    kind: ClassVar[str] = "model_registered"
    number: int
    model: str
    version: str
    alias: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEnded(Event):
    """state: COMPLETED, STOPPED or FAILED. best: number of the winner, none where no trial has a score."""

    kind: ClassVar[str] = "sweep_ended"
    state: str
    reason: str
    best: int | None = None
    phases_s: dict[str, float] = field(default_factory=dict)


EVENT_KINDS: dict[str, type[Event]] = {
    event.kind: event
    for event in (
        SweepStarted,
        PoolRequested,
        PoolOpened,
        PoolLost,
        PoolClosed,
        NodeAvoided,
        TrialCreated,
        TrialSeated,
        TrialUnseated,
        TrialReported,
        RungDecided,
        TrialEnded,
        WinnerConfirmed,
        AdaptersRemoved,
        RoundFinished,
        TestScored,
        ModelRegistered,
        SweepEnded,
    )
}


def event_to_json(event: Event) -> dict[str, Any]:
    """Plain JSON of an event, its kind and the schema version with it."""
    return {"schema": SCHEMA_VERSION, "kind": event.kind, **asdict(event)}


def event_from_json(record: Mapping[str, Any]) -> Event:
    """The event of a record. Raises ValueError on a kind or schema that this version does not know."""
    if record.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"schema={record.get('schema')!r} is not {SCHEMA_VERSION}, the one this version reads")
    if record.get("kind") not in EVENT_KINDS:
        raise ValueError(f"kind={record.get('kind')!r} is no event of this version")
    event_type = EVENT_KINDS[record["kind"]]
    names = {f.name for f in fields(event_type)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k in names}
    return event_type(**values)
