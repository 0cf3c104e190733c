"""A finished sweep of one trial on disk, trained in this process without Ray: base, rows, checkpoint and event log."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.support.small_sweep import NAME, spec_fields, train_alone, write_base, write_rows

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.hyperparameters import baseline_params
from pharos.plan.paths import SweepPaths
from pharos.plan.trial import TrialPlan
from pharos.spec.identity import spec_to_json
from pharos.spec.model import SweepSpec
from pharos.sweep.staging import stage
from pharos.track.event_log import EventLog
from pharos.track.versions import library_versions

NUM_STEPS = 8
TRIAL = f"{NAME}-0000"


def finished_sweep(root: Path, **changes: Any) -> SweepPaths:
    """`root/results` holds the sweep, `root/base` and `root/rows.jsonl` what it was made of.

    changes: of the trial's hyperparameters, as its log says them; it was trained without.
    """
    write_base(root / "base")
    write_rows(root / "rows.jsonl")
    fields = spec_fields(storage=str(root / "results"))
    fields["train"] |= {"max_steps": NUM_STEPS}
    fields["optim"] |= {"learning_rate": 1e-3}
    spec = SweepSpec.model_validate(fields)
    staged = stage(spec, root=root, progress=lambda text: None)
    plan = trial_plan(spec, 0, baseline_params(spec), staged.plan.data.num_train_items)
    paths = SweepPaths(staged.storage, spec.name)
    data = staged.data.directory
    alone = train_alone(spec, plan, base=staged.base_dir, data=data, trials=paths.trials, report_every=NUM_STEPS)
    log = [
        ev.SweepStarted(
            sweep=spec.name,
            spec=spec_to_json(spec),
            digests=staged.digests(),
            versions=library_versions(),
            num_trials=1,
            metric="eval_loss",
            root=str(root),
        ),
        ev.TrialCreated(number=0, trial=_said(plan, changes).to_json()),
        _reported(paths, alone),
        ev.TrialEnded(number=0, state="COMPLETED", reason="done", score=1.25, step=NUM_STEPS),
        ev.TestScored(number=0, metrics={"test_loss": 1.5, "test_exact_match": 0.25}),
        ev.TestScored(number=-1, metrics={"test_loss": 6.5}),
    ]
    EventLog(paths.events).append(log)
    return paths


def _said(plan: TrialPlan, changes: dict[str, Any]) -> TrialPlan:
    return replace(plan, hyperparameters=replace(plan.hyperparameters, **changes))


def _reported(paths: SweepPaths, alone: Any) -> ev.TrialReported:
    [checkpoint] = (paths.trials / "0000").iterdir()
    return ev.TrialReported(
        number=0,
        step=NUM_STEPS,
        clocks=2 * NUM_STEPS,
        steps=tuple(asdict(step) for step in alone.steps),
        eval_metrics={"eval_loss": 1.25},
        best_metric=1.25,
        best_step=NUM_STEPS,
        best_checkpoint=str(checkpoint),
        checkpoint=str(checkpoint),
    )
