"""The driver: takes a staged sweep from its first trial to a registered model. It obeys the plan and decides nothing.

Running it again resumes: the event log says what is left to do. Whatever it starts it ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray import tune

from pharos.errors import StorageError, SweepFailed, TrackingError
from pharos.plan import events as ev
from pharos.plan.confirmation import confirmed, is_confirmed, repeats
from pharos.plan.exchange import Score
from pharos.plan.ledger import Ledger
from pharos.plan.metrics import asked_answers, ranking_metric
from pharos.plan.paths import SweepPaths
from pharos.plan.pool import GenerationSettings, PoolSettings
from pharos.plan.result import result_json
from pharos.plan.trial import BASELINE
from pharos.spec.identity import MAY_CHANGE, spec_difference, spec_to_json
from pharos.sweep.desk_actor import DeskActor
from pharos.sweep.hand_over import hand_over
from pharos.sweep.keeper import PoolKeeper, keeping
from pharos.sweep.listeners import listening
from pharos.sweep.names import HEAD, UNTRAINED, desk_name
from pharos.sweep.paths import sweep_lock
from pharos.sweep.phases import Phases
from pharos.sweep.pool import run_pool_group
from pharos.sweep.ray_session import logs_directory, ray_session, refuse_second_actor
from pharos.sweep.result_file import has_result, leave_result
from pharos.sweep.retention import Retention
from pharos.sweep.search import SweepSearch
from pharos.sweep.seat import OpenSeats, seat_of
from pharos.sweep.sharing import share_inputs, shared
from pharos.sweep.staging import Staged
from pharos.sweep.storage_check import check_before_pools
from pharos.sweep.telemetry import backlog_shown
from pharos.track.event_log import EventLog
from pharos.track.follower import Follower
from pharos.track.mlflow_client import check_tracking, shown
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.run_values import without_password
from pharos.track.versions import library_versions

RESUMABLE = (*MAY_CHANGE, "storage")
"""What may differ from the spec that a sweep began with. A storage may be moved, and its sweeps with it."""


NUM_OTHER_PROCESSES = 8
"""Of Ray beside seats and workers: desk, launcher, Train's controller and helpers, spares."""
STOPPING_PATIENCE_S = 45
"""How long an interrupted sweep waits for its pools to save their trials; `ray job stop` is told to wait longer."""
CLOSING_PATIENCE_S = 10
"""How long a sweep that was stopped waits for MLflow; a resumed one catches up."""
TRACKING_PATIENCE_S = 60
"""How long the end of a sweep waits for a tracking server that has fallen behind."""


class SweepView(Protocol):
    """What the driver tells a person while it works."""

    def phase(self, text: str) -> None: ...

    def update(self, events: Sequence[ev.Event]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where to run: none starts Ray on this machine."""

    address: str | None = None
    dashboard_port: int | None = None


def run_sweep(staged: Staged, *, cluster: Cluster, view: SweepView) -> dict[str, Any]:
    """Run or resume a sweep; returns what result.json holds.

    Raises a UserError kind for what the user can mend, SweepFailed when no trial could be trained, HandOverError when
    the merged model failed a check. KeyboardInterrupt passes through, once the pools have saved their trials: the log
    is whole, and a second run resumes. A second interrupt does not wait for that.
    """
    paths = SweepPaths(staged.storage, staged.spec.name)
    with sweep_lock(paths):
        log = EventLog(paths.events)
        before = Ledger.of(log.read())
        refuse_other_spec(before, staged)
        if _is_finished(before, staged):
            result = result_json(before, staged.plan)
            if not has_result(paths):  # the session that finished it did not get so far
                leave_result(paths, result)
            return result
        uri = staged.spec.tracking.uri or paths.tracking_uri
        check_tracking(uri, staged.spec.tracking.experiment)
        return _Run(staged, paths, log, uri, view).run(cluster)


def refuse_other_spec(before: Ledger, staged: Staged) -> None:
    """Raise StorageError with the difference when the storage holds a sweep of this name with another spec."""
    if before.started is None:
        return
    now = spec_to_json(staged.spec)
    difference = spec_difference(before.started.spec, now, ignore=RESUMABLE)
    difference += spec_difference(
        {"pool.placement": before.started.spec["pool"]["placement"]}, {"pool.placement": now["pool"]["placement"]}
    )
    if difference:
        changes = "\n".join(f"  {line}" for line in difference)
        raise StorageError(
            f"name={staged.spec.name} is a sweep in {staged.storage} already, with another spec:\n{changes}\n"
            "Give this one another name, or take the change back to resume."
        )
    data = before.started.digests.get("data")
    if data is not None and data != staged.data.digest:
        raise StorageError(
            f"name={staged.spec.name} is a sweep in {staged.storage} already, and its data have changed since "
            f"(digest {data[:12]}, now {staged.data.digest[:12]}). Give this one another name, or restore the files."
        )


def pool_settings(staged: Staged, paths: SweepPaths, pool: str) -> PoolSettings:
    """What the plan says of a pool, as its workers need it."""
    spec, plan = staged.spec, staged.plan
    targets = spec.lora.target_modules
    return PoolSettings(
        pool=pool,
        base_key=plan.base_key,
        base_dir=shared(staged.shared_base or staged.base_dir),
        data_dir=shared(staged.data.directory),
        trials_dir=shared(paths.trials),
        workers=plan.num_workers,
        seats_per_worker=plan.seats_per_worker,
        placement=plan.placement,
        sharding=plan.sharding,
        target_modules=targets if isinstance(targets, str) else tuple(targets),
        r_max=plan.r_max,
        micro_batch_size=spec.train.micro_batch_size,
        report_every=plan.report_every,
        metric=ranking_metric(spec),
        metric_scope=spec.search.metric_scope if spec.search else "best",
        dtype=plan.dtype,
        activation_checkpointing=spec.train.activation_checkpointing,
        trust_remote_code=spec.trust_remote_code,
        rungs=plan.rungs,
        generation=_generation(staged),
    )


def _generation(staged: Staged) -> GenerationSettings | None:
    """What a pool asks of its trials, where answers are what ranks them."""
    asked = asked_answers(staged.spec)
    if asked is None:
        return None
    return GenerationSettings(
        max_rows=asked.max_rows,
        max_new_tokens=asked.max_new_tokens,
        stop_ids=tuple(staged.data.stop_ids),
        pad_id=staged.data.pad_id,
    )


class _Run:
    """One session of a sweep, phase by phase."""

    def __init__(self, staged: Staged, paths: SweepPaths, log: EventLog, uri: str, view: SweepView) -> None:
        self._staged, self._paths, self._log, self._uri, self._view = staged, paths, log, uri, view
        self._spec, self._plan = staged.spec, staged.plan
        self._phases = Phases()
        self._keeper: PoolKeeper

    def run(self, cluster: Cluster) -> dict[str, Any]:
        self._enter("start", "starting Ray")
        count, workers = self._spec.pool.count, self._plan.num_workers
        with ray_session(
            address=cluster.address,
            num_cpus=max(os.cpu_count() or 1, int(count.min * workers * self._spec.pool.cpus_per_worker)),
            num_processes=count.max * (self._plan.num_seats + workers) + NUM_OTHER_PROCESSES,
            gpus=self._spec.pool.gpus_per_worker > 0,
            threads_per_worker=max(1, int(self._spec.pool.cpus_per_worker)),
            dashboard_port=cluster.dashboard_port,
        ):
            check_before_pools(self._staged)
            refuse_second_actor(desk_name(self._spec.name), f"name={self._spec.name}")
            self._desk = (
                ray.remote(DeskActor)
                .options(
                    name=desk_name(self._spec.name),
                    num_cpus=0,
                    resources=HEAD,
                    max_concurrency=1000,
                    max_restarts=-1,
                    max_task_retries=-1,
                )
                .remote(self._spec, self._plan, self._log)
            )
            ray.get(
                self._desk.open.remote(
                    digests=self._staged.digests(),
                    versions=library_versions(),
                    spec_json=without_password(spec_to_json(self._spec)),
                    root=str(self._staged.root),
                )
            )
            follower = Follower(self._log, self._runs())
            tidy = Retention(self._spec, self._paths, lambda event: ray.get(self._desk.record.remote(event)))
            listeners = [self._view.update, follower.publish, tidy.update]
            with (
                backlog_shown(self._spec.name, lambda: follower.backlog),
                listening(self._desk, listeners),
                self._ended_in_order(follower),
            ):
                self._sweep()
                self._hand_over(follower)
                result = self._finish()
            self._view.phase("writing the last events to MLflow")
            backlog = follower.close(timeout_s=TRACKING_PATIENCE_S)
        leave_result(self._paths, result)
        if backlog:
            self._view.phase(f"{backlog} events have not reached MLflow ({follower.last_error})")
        else:
            self._keep_with_the_run()
        return result

    def _sweep(self) -> None:
        """Everything that needs the pool: search, then the test rows of the winner, the baseline and the base."""
        share_inputs(self._staged, self._view.phase)
        self._enter("pool", "starting the pool")
        with keeping(self._desk, self._spec.pool, self._launch) as self._keeper, self._pools_sent_home():
            self._enter("search", "training")
            self._search()
            self._check()
            self._confirm()
            self._enter("test", "scoring winner, baseline and base on test rows")
            self._score()
            self._keeper.send_home("the sweep is over")
            self._check()

    def _launch(self, pool: str, avoided: Sequence[str]) -> Any:
        """Start a pool's launcher."""
        settings = pool_settings(self._staged, self._paths, pool)
        desk, state = desk_name(self._spec.name), str(self._paths.ray)
        # Train's cleaner, which frees what a lost controller held, looks for the one Ray of its machine: name ours.
        here = {"env_vars": {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}}
        launcher = run_pool_group.options(runtime_env=here)
        return launcher.remote(settings, self._spec.pool, desk, state, avoided)

    @contextmanager
    def _pools_sent_home(self) -> Iterator[None]:
        """At an interrupt inside, pools save their trials and go."""
        try:
            yield
        except KeyboardInterrupt:
            self._view.phase("stopping: pools save their trials (interrupt again to end at once)")
            with suppress(ray.exceptions.RayError):
                self._keeper.send_home("the sweep was stopped", at_once=True, timeout_s=STOPPING_PATIENCE_S)
            raise

    @contextmanager
    def _ended_in_order(self, follower: Follower) -> Iterator[None]:
        """At an interrupt inside, the log says so and the runs are closed as stopped."""
        try:
            yield
        except KeyboardInterrupt:
            with suppress(ray.exceptions.RayError):
                self._end("STOPPED", "stopped before its end; it can be resumed")
                follower.publish(ray.get(self._desk.events_since.remote(0)))
                follower.close(timeout_s=CLOSING_PATIENCE_S)
            raise

    def _search(self) -> None:
        """Ray Tune runs the proxies until every trial has its final state."""
        ledger = self._ledger()
        left = self._plan.num_trials - ledger.num_finished
        if left <= 0:
            return
        desk, most = desk_name(self._spec.name), self._spec.pool.count.max * self._plan.num_seats
        tune.Tuner(
            tune.with_resources(seat_of(desk), HEAD),
            tune_config=tune.TuneConfig(
                search_alg=SweepSearch(self._spec, ledger, num_trials=self._plan.num_trials, num_seats=OpenSeats(desk)),
                num_samples=left,
                max_concurrent_trials=min(left, most),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"session-{ledger.next_sequence}",
                storage_path=str(self._paths.ray),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=2),
            ),
        ).fit()

    def _confirm(self) -> None:
        """Where the spec asks for it: repeat the best trials and the baseline, and name the winner by that."""
        confirm = self._spec.search.confirm if self._spec.search else None
        if confirm is None:
            return
        wanted = repeats(self._spec, self._ledger(), confirm)
        self._enter("confirm", f"repeating the best and the baseline under {confirm.seeds} further seeds")
        ray.get(self._desk.repeat.remote(wanted))
        self._check()
        winner = confirmed(self._spec, self._ledger(), confirm)
        if winner is not None:
            ray.get(self._desk.record.remote(winner))

    def _score(self) -> None:
        ledger = self._ledger()
        best = ledger.best()
        if best is None:
            raise SweepFailed("no trial has a score: " + _reasons(ledger) + f"\nThe log: {self._paths.events}")
        wanted = [Score(number=UNTRAINED, adapter=None, split="test")]
        for number in sorted({BASELINE, best.number}):
            adapter = ledger.trials[number].best_checkpoint
            if adapter is not None:
                wanted.append(Score(number=number, adapter=adapter, split="test"))
        ray.get(self._desk.score.remote(wanted))

    def _hand_over(self, follower: Follower) -> None:
        """Merge, check, register. The registry ties a version to its trial's run, so MLflow must have caught up."""
        self._enter("hand_over", "handing the winner over")
        follower.publish(ray.get(self._desk.events_since.remote(0)))
        deadline_s = time.monotonic() + TRACKING_PATIENCE_S
        while follower.backlog and time.monotonic() < deadline_s:
            time.sleep(0.1)
        if follower.backlog and self._spec.register_.enabled:
            raise TrackingError(
                f"tracking.uri={shown(self._uri)} has stopped answering: {follower.last_error}. "
                "All trials are done and kept; run the same command again once the server is back: it only registers."
            )
        ledger, runs = self._ledger(), self._runs()
        runs.attach(self._spec.name, next(self._log.read()).time_s)
        for event in hand_over(self._staged, self._paths, ledger, runs, progress=self._view.phase):
            ray.get(self._desk.record.remote(event))

    def _finish(self) -> dict[str, Any]:
        self._end("COMPLETED", "all trials are done", phases_s=self._phases.seconds())
        return result_json(self._ledger(), self._plan)

    def _end(self, state: str, reason: str, *, phases_s: dict[str, float] | None = None) -> None:
        """Write the last event of this session."""
        best = self._ledger().best()
        number = None if best is None else best.number
        ray.get(
            self._desk.record.remote(ev.SweepEnded(state=state, reason=reason, best=number, phases_s=phases_s or {}))
        )

    def _runs(self) -> MlflowRuns:
        return MlflowRuns(self._uri, self._spec.tracking.experiment, artifact_root=self._paths.artifacts)

    def _keep_with_the_run(self) -> None:
        """result.json and the report beside the sweep's metrics."""
        runs = self._runs()
        runs.attach(self._spec.name, next(self._log.read()).time_s)
        runs.log_artifact(self._paths.result)
        runs.log_artifact(self._paths.report)

    def _check(self) -> None:
        if self._keeper.error is not None:
            raise self._keeper.error
        failure = ray.get(self._desk.failure.remote())
        if failure is not None:
            raise SweepFailed(
                f"the pool could not be kept alive: {failure}\n"
                f"Its workers' logs, on the nodes where they ran: {logs_directory()}\n"
                "Finished trials are kept; run the same command again to resume."
            )

    def _ledger(self) -> Ledger:
        return Ledger.of(ray.get(self._desk.events_since.remote(0)))

    def _enter(self, name: str, text: str) -> None:
        self._phases.enter(name)
        self._view.phase(text)


def _is_finished(before: Ledger, staged: Staged) -> bool:
    """Whether nothing is left to do: all trials of the plan are final, the winner confirmed, the hand-over done."""
    complete = before.ended is not None and before.ended.state == "COMPLETED"
    confirm = staged.spec.search.confirm if staged.spec.search else None
    return complete and before.num_finished >= staged.plan.num_trials and is_confirmed(before, confirm)


def _reasons(ledger: Ledger) -> str:
    return "; ".join(sorted({trial.reason for trial in ledger.trials.values() if trial.reason})) or "none was trained"
