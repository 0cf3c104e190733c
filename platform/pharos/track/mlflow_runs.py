"""A sweep's events as MLflow runs: a parent for the sweep, one child per trial. Writing events again adds nothing.

Runs are found again by their tags, and a metric of a run only goes forward in steps; so any failure is answered by
forgetting what is held in memory and reading it from the store again. Explicit run ids, no fluent API, no threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pharos.errors import TrackingError
from pharos.plan import events as ev
from pharos.plan.hyperparameters import dotted
from pharos.plan.metrics import EVAL_LOSS
from pharos.plan.seat_time import SeatEvent, SeatTime
from pharos.plan.trial import TrialPlan, TrialState, repeat_of, trial_name
from pharos.track.mlflow_client import connect, ensure_experiment, request_limits, runs_with, shown, tracking_errors
from pharos.track.run_values import as_params, cut, flat, in_ms, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

WRITE_TIMEOUT_S = 10
MAX_METRICS_PER_CALL = 800  # with 100 params and 100 tags beside them, MLflow's limit of 1000 entities
MAX_PARAMS_PER_CALL = 100
MAX_TAG_LENGTH = 5000  # MLflow takes 8000; a call takes 1 MB

STEP_METRICS = ("loss", "grad_norm", "learning_rate", "epoch")
RUN_STATUS = {
    "COMPLETED": "FINISHED",
    "PRUNED": "KILLED",
    "STOPPED": "KILLED",
    "DIVERGED": "FAILED",
    "FAILED": "FAILED",
}


@dataclass(slots=True)
class _Run:
    """A run, and how far each metric of it is published.

    is_new: made just now, so nothing needs to be read. is_open: not closed with a final status.
    """

    id: str
    is_new: bool
    is_open: bool = True
    published: dict[str, int] = field(default_factory=dict)
    num_tokens: float = 0.0
    seat_time: SeatTime = field(default_factory=SeatTime)


@dataclass(slots=True)
class _Pending:
    """What one write has to say of one run. status: MLflow's, with the time of its end in ms."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: tuple[str, int] | None = None


class MlflowRuns:
    """The runs of one sweep. `attach` first, then `write` events in order.

    artifact_root: absolute directory for artifacts when a database store has no server before it.
    """

    def __init__(self, tracking_uri: str, experiment: str, *, artifact_root: Path | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.artifact_root = artifact_root
        self._client: MlflowClient | None = None
        self._sweep = ""
        self._experiment_id = ""
        self._parent: _Run | None = None
        self._trials: dict[int, _Run] = {}
        self._pending: dict[str, _Pending] = {}

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            self._client = connect(self.tracking_uri)
        return self._client

    def attach(self, sweep: str, first_time_s: float) -> int:
        """Find the sweep's runs, or make its parent, and return the sequence number of the next event to write.

        A sweep is known by its name and the time of its log's first event: the same name on a new storage is another.
        """
        with self._store_calls():
            self._sweep = sweep
            self._experiment_id = ensure_experiment(self.client, self.experiment, self.artifact_root)
            identity = {"pharos.kind": "sweep", "pharos.sweep": sweep, "pharos.log": f"{first_time_s:.6f}"}
            found = self._search(identity)
            self._trials, self._pending = {}, {}
            if not found:
                self._parent = _Run(self._create_run(sweep, first_time_s, identity), is_new=True)
                return 0
            self._parent = _Run(found[0].info.run_id, is_new=False)
            for run in self._search({"pharos.kind": "trial", "mlflow.parentRunId": self._parent.id}):
                seat_time = _seat_time_of(run.data.tags)
                self._trials[int(run.data.tags["pharos.trial"])] = _Run(
                    run.info.run_id, is_new=False, is_open=run.info.status == "RUNNING", seat_time=seat_time
                )
            return int(found[0].data.tags.get("pharos.cursor", 0))

    def write(self, events: Sequence[ev.Event]) -> None:
        """Publish events that follow each other. Raises TrackingError; `attach` again after that."""
        if not events:
            return
        with self._store_calls():
            self._pending = {}
            for event in events:
                self._take(event)
            for run_id, pending in self._pending.items():
                self._flush(run_id, pending)
            self.client.set_tag(self.parent_id, "pharos.cursor", str(events[-1].sequence + 1))

    @property
    def parent_id(self) -> str:
        if self._parent is None:
            raise RuntimeError("MlflowRuns.attach comes first")
        return self._parent.id

    def trial_run_id(self, number: int) -> str:
        """The run of a trial. Raises TrackingError where the store has none yet."""
        if number not in self._trials:
            raise TrackingError(
                f"tracking: {shown(self.tracking_uri)} has no run of {trial_name(self._sweep, number)} yet: it lags "
                "behind the sweep. Run the same sweep again once the server answers: it only catches up and registers."
            )
        return self._trials[number].id

    def log_artifact(self, path: Path) -> None:
        """Keep a file, such as result.json, with the parent run."""
        self.client.log_artifact(self.parent_id, str(path))

    @contextmanager
    def _store_calls(self) -> Iterator[None]:
        """Calls that fail soon and say so in one line: whoever called tries again."""
        with request_limits(timeout_s=WRITE_TIMEOUT_S, max_retries=0), tracking_errors(self.tracking_uri, "Retrying."):
            yield

    def _take(self, event: ev.Event) -> None:
        """Note what an event says of the parent and of its trial."""
        match event:
            case ev.SweepStarted():
                self._start(event)
            case ev.TrialCreated():
                self._create(event)
            case ev.TrialSeated():
                tags = {"state": TrialState.RUNNING, "pool": event.pool, "seat": event.seat}
                self._tag(self._trial(event.number, event), tags)
                self._sit(self._trial(event.number, event), event)
                self._reopen(self._trial(event.number, event))
            case ev.TrialUnseated():
                self._tag(self._trial(event.number, event), {"state": TrialState.WAITING})
                self._sit(self._trial(event.number, event), event)
            case ev.PoolLost():
                for number in event.trials:
                    self._tag(self._trial(number, event), {"state": TrialState.WAITING})
                    self._sit(self._trial(number, event), event)
            case ev.TrialReported():
                self._report(event)
            case ev.RungDecided():
                self._tag(self._trial(event.number, event), {"rung": event.reason})
            case ev.TrialEnded():
                trial = self._trial(event.number, event)
                self._tag(trial, {"state": event.state, "reason": event.reason})
                self._sit(trial, event)
                if event.score is not None:
                    self._measure(trial, {"score": event.score}, event.time_s, event.step)
                self._close(trial, event.state, event.time_s)
            case ev.WinnerConfirmed():
                self._confirm(event)
            case ev.TestScored():
                run = self._sweep_run() if event.number < 0 else self._trial(event.number, event)
                prefix = "base_" if event.number < 0 else ""
                named = {prefix + name: value for name, value in event.metrics.items()}
                self._measure(run, named, event.time_s, step=0)
            case ev.ModelRegistered():
                tags = {"model": event.model, "model_version": event.version, "winner": event.number}
                self._tag(self._sweep_run(), tags)
            case ev.SweepEnded():
                self._end(event)

    def _start(self, event: ev.SweepStarted) -> None:
        sweep = self._sweep_run()
        spec = without_password(event.spec)
        self._tag(sweep, {"state": "RUNNING", "metric": event.metric, "num_trials": event.num_trials})
        self._tag(sweep, {f"digest.{name}": digest for name, digest in event.digests.items()})
        self._tag(sweep, {f"version.{name}": version for name, version in event.versions.items()})
        if event.resumed:
            self._note(sweep).status = ("RUNNING", 0)
        else:
            # A resumed sweep may have another num_trials or pool, and MLflow never changes a parameter.
            resource_free = {name: spec[name] for name in spec if name not in ("pool", "storage", "tracking")}
            self._note(sweep).params |= as_params(flat(resource_free))
        self.client.log_dict(sweep.id, spec, "spec.json")

    def _create(self, event: ev.TrialCreated) -> None:
        trial, plan = self._trial(event.number, event), TrialPlan.from_json(event.trial)
        values = {**dotted(plan.hyperparameters), **plan.params, "num_steps": plan.num_steps}
        self._note(trial).params |= as_params(values)
        self._tag(trial, {"state": TrialState.WAITING, "searched": ", ".join(plan.params)})
        if (repeat := repeat_of(event.number)) is not None:
            self._tag(trial, {"repeats": repeat.of})

    def _report(self, event: ev.TrialReported) -> None:
        """Steps that a resumed trial repeats are already published, and their tokens already counted."""
        trial = self._trial(event.number, event)
        for step in event.steps:
            if step["step"] > self._published(trial, "num_tokens"):
                trial.num_tokens += step["num_tokens"]
            metrics = {name: step[name] for name in STEP_METRICS} | {"num_tokens": trial.num_tokens}
            self._measure(trial, metrics, step["time_s"], step["step"])
        self._measure(trial, event.eval_metrics, event.time_s, event.step)
        # What a comparison needs and a run's latest metrics would not say: how far it is, and where it was best.
        progress: dict[str, float] = {"steps": event.step, "clocks": event.clocks}
        if event.best_metric is not None and event.best_step is not None:
            progress |= {"best_metric": event.best_metric, "best_step": event.best_step}
        if event.best_step == event.step and EVAL_LOSS in event.eval_metrics:
            progress |= {"best_loss": event.eval_metrics[EVAL_LOSS]}
        self._measure(trial, progress, event.time_s, event.step)
        self._sit(trial, event)

    def _sit(self, run: _Run, event: SeatEvent) -> None:
        """How long a trial has sat in seats; its tags hold enough to go on from in another process."""
        run.seat_time.apply(event)
        self._tag(run, asdict(run.seat_time))

    def _confirm(self, event: ev.WinnerConfirmed) -> None:
        """What the repeats of a contender say of it stands with its own run, and the winner with the sweep's."""
        self._tag(self._sweep_run(), {"confirmed_winner": event.winner})
        for contender in event.contenders:
            named = {"confirm_mean": contender["mean"], "confirm_std": contender["std"]}
            named |= {"confirm_probability_better": contender["probability_better"]}
            known = {name: value for name, value in named.items() if value is not None}
            self._measure(self._trial(contender["number"], event), known, event.time_s, step=event.sequence)

    def _end(self, event: ev.SweepEnded) -> None:
        sweep = self._sweep_run()
        self._tag(sweep, {"state": event.state, "reason": event.reason})
        self._measure(sweep, {f"phase.{name}_s": value for name, value in event.phases_s.items()}, event.time_s, 0)
        if event.best is not None:
            self._tag(sweep, {"best_trial": event.best})
        for trial in self._trials.values():
            if trial.is_open:  # a sweep that was stopped; a resumed one opens them again
                self._close(trial, event.state, event.time_s)
        self._note(sweep).status = (RUN_STATUS[event.state], in_ms(event.time_s))

    def _close(self, trial: _Run, state: str, time_s: float) -> None:
        trial.is_open = False
        self._note(trial).status = (RUN_STATUS[state], in_ms(time_s))

    def _reopen(self, trial: _Run) -> None:
        if not trial.is_open:
            trial.is_open = True
            self._note(trial).status = ("RUNNING", 0)

    def _sweep_run(self) -> _Run:
        if self._parent is None:
            raise RuntimeError("MlflowRuns.attach comes first")
        return self._parent

    def _trial(self, number: int, event: ev.Event) -> _Run:
        """The run of a trial, made where there is none (its creation, or a person deleted it)."""
        if number not in self._trials:
            name = trial_name(self._sweep, number)
            tags = {"pharos.kind": "trial", "pharos.sweep": self._sweep, "pharos.trial": str(number)}
            run_id = self._create_run(name, event.time_s, {**tags, "mlflow.parentRunId": self.parent_id})
            self._trials[number] = _Run(run_id, is_new=True)
        return self._trials[number]

    def _create_run(self, name: str, time_s: float, tags: dict[str, str]) -> str:
        run = self.client.create_run(self._experiment_id, start_time=in_ms(time_s), tags=tags, run_name=name)
        return str(run.info.run_id)

    def _search(self, tags: Mapping[str, str]) -> list[Any]:
        """All runs with these tags."""
        return runs_with(self.client, [self._experiment_id], tags)

    def _note(self, run: _Run) -> _Pending:
        return self._pending.setdefault(run.id, _Pending())

    def _tag(self, run: _Run, tags: Mapping[str, object]) -> None:
        self._note(run).tags |= {f"pharos.{name}": cut(str(tags[name]), MAX_TAG_LENGTH) for name in tags}

    def _measure(self, run: _Run, metrics: Mapping[str, float], time_s: float, step: int) -> None:
        for name, value in metrics.items():
            if step > self._published(run, name):
                self._note(run).metrics.append((name, float(value), in_ms(time_s), step))
                run.published[name] = step

    def _published(self, run: _Run, name: str) -> int:
        """The last step of a metric that the store has, -1 where it has none."""
        if name not in run.published:
            history = [] if run.is_new else self.client.get_metric_history(run.id, name)
            last = max(history, key=lambda metric: metric.step, default=None)
            run.published[name] = last.step if last else -1
            if last and name == "num_tokens":
                run.num_tokens = last.value
        return run.published[name]

    def _flush(self, run_id: str, pending: _Pending) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params = [Param(name, value) for name, value in pending.params.items()]
        tags = [RunTag(name, value) for name, value in pending.tags.items()]
        metrics = [Metric(name, value, time_ms, step) for name, value, time_ms, step in pending.metrics]
        while metrics or params or tags:
            self.client.log_batch(
                run_id,
                metrics=metrics[:MAX_METRICS_PER_CALL],
                params=params[:MAX_PARAMS_PER_CALL],
                tags=tags[:MAX_PARAMS_PER_CALL],
                synchronous=True,
            )
            metrics, params = metrics[MAX_METRICS_PER_CALL:], params[MAX_PARAMS_PER_CALL:]
            tags = tags[MAX_PARAMS_PER_CALL:]
        if pending.status is not None and pending.status[0] == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        elif pending.status is not None:
            status, end_ms = pending.status
            self.client.set_terminated(run_id, status=status, end_time=end_ms)


def _seat_time_of(tags: Mapping[str, str]) -> SeatTime:
    return SeatTime(
        seat_s=float(tags.get("pharos.seat_s", 0)),
        until_s=float(tags.get("pharos.until_s", 0)),
        is_seated=tags.get("pharos.is_seated") == "True",
    )
