"""Reading a sweep to compare it: from its event log, or from MLflow alone, long after the cluster is gone.

Both give the same value. The log is read without MLflow, in one pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from pharos.errors import StorageError, TrackingError
from pharos.plan import events as ev
from pharos.plan.comparison import ComparedSweep, TrialFacts, sweep_of_ledger, with_trials
from pharos.plan.ledger import Ledger
from pharos.plan.seat_time import SeatTime
from pharos.plan.trial import TrialState
from pharos.spec.model import Domain
from pharos.spec.space import domain_of
from pharos.track.mlflow_client import all_pages, open_store, request_limits, runs_with, shown, tracking_errors
from pharos.track.run_values import of_param
from pharos.track.sweeps import log_of, which_sweep

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

READ_TIMEOUT_S = 30
SPACE_PREFIX = "search.space."


def sweep_of_log(directory: Path) -> ComparedSweep:
    """The sweep of a directory, as its event log tells it. Raises StorageError where the log is not whole."""
    ledger, seat_times = Ledger(), dict[int, SeatTime]()
    for event in log_of(directory).read():
        if ledger.started is None and not isinstance(event, ev.SweepStarted):
            raise StorageError(f"{directory}: the event log begins with {event.kind}, not sweep_started.")
        ledger.apply(event)
        match event:
            case ev.TrialSeated() | ev.TrialReported() | ev.TrialUnseated() | ev.TrialEnded():
                seat_times.setdefault(event.number, SeatTime()).apply(event)
            case ev.PoolLost():
                for number in event.trials:
                    seat_times.setdefault(number, SeatTime()).apply(event)
    if ledger.started is None:
        raise StorageError(f"{directory}: the event log is empty.")
    return sweep_of_ledger(ledger, seat_times, source=str(directory))


def sweep_of_mlflow(uri: str, name: str) -> ComparedSweep:
    """The sweep of a name as MLflow's runs tell it: its parent run and its children. Nothing else is read.

    Where a store has several of this name, from several storages, the one that began last. Raises TrackingError where
    the store is away or has no such sweep.
    """
    remedy = "Start it (mlflow server), correct --tracking-uri, or name the storage that has the event log."
    with request_limits(timeout_s=READ_TIMEOUT_S, max_retries=0), tracking_errors(uri, remedy):
        client = open_store(uri, "Correct --tracking-uri.")
        experiments = [str(experiment.experiment_id) for experiment in all_pages(client.search_experiments)]
        found = _find(client, experiments, {"pharos.kind": "sweep", "pharos.sweep": name})
        if not found:
            sweeps = _find(client, experiments, {"pharos.kind": "sweep"})
            raise _unknown(uri, name, sorted({str(run.data.tags["pharos.sweep"]) for run in sweeps}))
        parent = max(found, key=lambda run: float(run.data.tags.get("pharos.log", 0)))
        wanted = {"pharos.kind": "trial", "mlflow.parentRunId": parent.info.run_id}
        children = _find(client, [parent.info.experiment_id], wanted)
    return with_trials(_sweep_of(parent, uri), [_facts_of(run) for run in children])


def _find(client: MlflowClient, experiments: list[str], tags: Mapping[str, str]) -> list[Run]:
    """All runs with these tags. A value that no tag of ours can have finds none."""
    if not all(re.fullmatch(r"[\w.-]+", value) for value in tags.values()):
        return []
    return runs_with(client, experiments, tags)


def _unknown(uri: str, name: str, there: list[str]) -> TrackingError:
    remedy = which_sweep(name, there, none="It holds no sweep at all: correct --tracking-uri.")
    return TrackingError(f"sweep={name}: no sweep of this name is tracked in {shown(uri)}. {remedy}")


def _sweep_of(parent: Run, uri: str) -> ComparedSweep:
    tags: Mapping[str, str] = parent.data.tags
    winner = tags.get("pharos.best_trial", tags.get("pharos.winner", tags.get("pharos.confirmed_winner")))
    return ComparedSweep(
        label=tags["pharos.sweep"],
        source=shown(uri),
        state=tags.get("pharos.state", "RUNNING"),
        reason=tags.get("pharos.reason", ""),
        metric=tags.get("pharos.metric", "eval_loss"),
        winner=None if winner is None else int(winner),
        model=tags.get("pharos.model"),
        space=_space_of(parent.data.params),
        digests={
            name.removeprefix("pharos.digest."): digest
            for name, digest in sorted(tags.items())
            if name.startswith("pharos.digest.")
        },
    )


def _space_of(params: Mapping[str, str]) -> dict[str, Domain]:
    """The search space from parameters such as search.space.lora.r.ordered=[2, 4]; cut ones are left out."""
    space: dict[str, Domain] = {}
    for name, text in params.items():
        field, _, kind = name.removeprefix(SPACE_PREFIX).rpartition(".")
        domain = domain_of(kind, of_param(text)) if name.startswith(SPACE_PREFIX) else None
        if domain is not None:
            space[field] = domain
    return space


def _facts_of(run: Run) -> TrialFacts:
    params = {name: of_param(text) for name, text in run.data.params.items()}
    num_steps = params.pop("num_steps", 0)
    tags, metrics = run.data.tags, run.data.metrics
    searched = [field for field in tags.get("pharos.searched", "").split(", ") if field in params]
    score = metrics.get("score", metrics.get("best_metric"))
    best_step = metrics.get("best_step")
    # Runs of a version that did not write these have no such tag; a trial that has not reported is at its beginning.
    is_known = "pharos.seat_s" in tags or "pharos.pool" not in tags
    return TrialFacts(
        number=int(tags["pharos.trial"]),
        state=TrialState(tags.get("pharos.state", "WAITING")),
        reason=tags.get("pharos.reason", ""),
        params={field: params[field] for field in searched},
        hyperparameters=params,
        score=score if score is not None and isfinite(score) else None,
        best_step=None if best_step is None else int(best_step),
        steps=int(metrics.get("steps", 0)) if is_known else None,
        num_steps=int(num_steps),
        num_tokens=int(metrics.get("num_tokens", 0)),
        clocks=int(metrics.get("clocks", 0)) if is_known else None,
        seat_s=float(tags.get("pharos.seat_s", 0)) if is_known else None,
        best_loss=metrics.get("best_loss"),
    )
