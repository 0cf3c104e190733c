"""A comparison for programs: one JSON object, or a CSV table. Keys and columns are never renamed. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pharos.plan.comparison import ComparedTrial, Comparison
from pharos.plan.comparison_rows import COLUMNS, field_value, hyperparameter_fields

COMPARISON_SCHEMA_VERSION = 1


def comparison_json(
    comparison: Comparison, trials: Sequence[ComparedTrial], importance: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """The comparison with the trials that were asked for. importance: by a sweep's label, then by dotted field."""
    return {
        "schema": COMPARISON_SCHEMA_VERSION,
        "metric": comparison.metric,
        "sweeps": [
            {
                "sweep": sweep.label,
                "source": sweep.source,
                "state": sweep.state,
                "reason": sweep.reason,
                "winner": sweep.winner,
                "model": sweep.model,
                "num_trials": len(sweep.trials),
                "repeats_cost_share": sweep.repeats_share,
                "digests": dict(sweep.digests),
                "importance": dict(importance.get(sweep.label, {})),
            }
            for sweep in comparison.sweeps
        ],
        "trials": [
            {
                **{column: field_value(trial, column) for column in COLUMNS},
                "params": dict(trial.facts.params),
                "hyperparameters": dict(trial.facts.hyperparameters),
            }
            for trial in trials
        ],
    }


def comparison_csv(comparison: Comparison, trials: Sequence[ComparedTrial]) -> str:
    """A line for each trial that was asked for, under a heading; hyperparameters in columns by dotted field, behind
    the others. Columns are those of the whole comparison, whatever was asked for; what has no value is empty."""
    columns = [*COLUMNS, *hyperparameter_fields(comparison)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(field_value(trial, column)) for column in columns] for trial in trials)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Truth values as JSON writes them."""
    return str(value).lower() if isinstance(value, bool) else value
