"""A sweep's result as plain JSON: what <storage>/<name>/result.json holds, for programs and for the console. Pure.

Keys are never renamed within a schema version. Numbers that are not finite become null.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.metrics import is_higher_better
from pharos.plan.sweep_plan import SweepPlan
from pharos.plan.trial import BASELINE, trial_name

RESULT_SCHEMA_VERSION = 1


def result_json(ledger: Ledger, plan: SweepPlan) -> dict[str, Any]:
    """Everything that came out of a sweep, as far as its events go: also of one that was stopped half-way.

    Seconds by phase are those of the last session, `wall_s` is between the first event and the last.
    """
    best = ledger.best()
    started, ended, registered = ledger.started, ledger.ended, ledger.registered
    result: dict[str, Any] = {
        "schema": RESULT_SCHEMA_VERSION,
        "sweep": plan.sweep,
        "state": ended.state if ended else "RUNNING",
        "reason": ended.reason if ended else "",
        "metric": ledger.metric,
        "higher_is_better": is_higher_better(ledger.metric),
        "best": best.number if best else None,
        "baseline": BASELINE,
        "trials": [trial_json(trial, plan.sweep) for _, trial in sorted(ledger.trials.items())],
        "confirmation": ledger.confirmation
        and {
            "winner": ledger.confirmation.winner,
            "seeds": list(ledger.confirmation.seeds),
            "contenders": [dict(contender) for contender in ledger.confirmation.contenders],
        },
        "repeats": [trial_json(trial, plan.sweep) for _, trial in sorted(ledger.repeats.items())],
        "test": {"untrained_base": dict(ledger.base_test_metrics)},
        "registered": registered
        and {
            "model": registered.model,
            "version": registered.version,
            "alias": registered.alias,
            "source": registered.source,
            "trial": registered.number,
        },
        "num_trials_planned": plan.num_trials,
        "pool": {
            "workers": plan.num_workers,
            "seats": plan.num_seats,
            "placement": plan.placement,
            "sharding": plan.sharding,
            "restarts": ledger.restarts,
            "count": ledger.most_pools,
        },
        "time": _time_json(ledger),
        "work": _work_json(ledger),
        "digests": dict(started.digests) if started else {},
        "versions": dict(started.versions) if started else {},
    }
    for name, number in (("best", result["best"]), ("baseline", BASELINE)):
        if number in ledger.trials:
            result["test"][name] = dict(ledger.trials[number].test_metrics)
    finite: dict[str, Any] = _finite(result)
    return finite


def trial_json(trial: TrialRecord, sweep: str) -> dict[str, Any]:
    """One trial. score: of the evaluation that ranks it, at best_step; checkpoint: the adapter kept from it."""
    return {
        "number": trial.number,
        "name": trial_name(sweep, trial.number),
        "state": str(trial.state),
        "reason": trial.reason,
        "params": dict(trial.plan.params),
        "hyperparameters": trial.plan.hyperparameters.to_json(),
        "score": trial.score,
        "best_step": trial.best_step,
        "steps": trial.step,
        "num_steps": trial.plan.num_steps,
        "clocks": trial.clocks,
        "num_tokens": trial.num_tokens,
        "loss": trial.last_loss,
        "checkpoint": trial.best_checkpoint,
        "evaluations": {str(step): dict(metrics) for step, metrics in sorted(trial.evaluations.items())},
        "rungs": {str(rung): score for rung, score in sorted(trial.rungs.items())},
        "test_metrics": dict(trial.test_metrics),
    }


def saved_share(ledger: Ledger) -> float:
    """Share of the optimizer steps of all trials at full length that were not run: 1 - run / full."""
    full = sum(trial.plan.num_steps for trial in ledger.trials.values())
    return 1 - sum(trial.step for trial in ledger.trials.values()) / full if full else 0.0


def _time_json(ledger: Ledger) -> dict[str, Any]:
    totals = ledger.totals
    wall_s = 0.0
    if ledger.first_time_s is not None and ledger.last_time_s is not None:
        wall_s = ledger.last_time_s - ledger.first_time_s
    return {
        "wall_s": wall_s,
        "phases_s": dict(ledger.ended.phases_s) if ledger.ended else {},
        "rounds_s": {
            "clocks": totals.clocks_s,
            "evaluation": totals.evaluation_s,
            "checkpoint": totals.checkpoint_s,
            "exchange": totals.exchange_s,
        },
    }


def _work_json(ledger: Ledger) -> dict[str, Any]:
    totals = ledger.totals
    steps = sum(trial.step for trial in ledger.trials.values())
    return {
        "rounds": totals.rounds,
        "clocks": totals.clocks,
        "trial_clocks": totals.live_seat_clocks,
        "occupancy": totals.occupancy,
        "steps": steps,
        "steps_full_length": sum(trial.plan.num_steps for trial in ledger.trials.values()),
        "steps_saved": saved_share(ledger),
        "num_tokens": totals.num_tokens,
        "num_padded_tokens": totals.num_padded_tokens,
    }


def _finite(value: Any) -> Any:
    """The value with every number that JSON cannot write replaced by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
