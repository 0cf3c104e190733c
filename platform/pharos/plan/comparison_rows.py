"""What a person asks of compared trials: which, in which order, how many. Pure.

Every column and every hyperparameter has a name, by which it is filtered, sorted and exported.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from math import isclose
from typing import Any

from pharos.errors import UserError
from pharos.plan.comparison import ComparedTrial, Comparison
from pharos.plan.trial import TrialState
from pharos.spec.fields import SYNONYMS, nearest

Value = bool | int | float | str | None

COLUMNS: Mapping[str, Callable[[ComparedTrial], Value]] = {
    "rank": lambda trial: trial.rank,
    "sweep": lambda trial: trial.sweep,
    "number": lambda trial: trial.facts.number,
    "trial": lambda trial: trial.name,
    "state": lambda trial: str(trial.facts.state),
    "reason": lambda trial: trial.facts.reason,
    "score": lambda trial: trial.facts.score,
    "best_step": lambda trial: trial.facts.best_step,
    "steps": lambda trial: trial.facts.steps,
    "num_steps": lambda trial: trial.facts.num_steps,
    "clocks": lambda trial: trial.facts.clocks,
    "num_tokens": lambda trial: trial.facts.num_tokens,
    "seat_s": lambda trial: trial.facts.seat_s,
    "cost_share": lambda trial: trial.cost_share,
    "is_baseline": lambda trial: trial.is_baseline,
    "is_winner": lambda trial: trial.is_winner,
    "difference": lambda trial: trial.difference,
    "repeats": lambda trial: trial.num_repeats,
    "repeated_difference": lambda trial: trial.repeated.mean if trial.repeated else None,
    "repeated_low": lambda trial: trial.repeated.interval[0] if trial.repeated and trial.repeated.interval else None,
    "repeated_high": lambda trial: trial.repeated.interval[1] if trial.repeated and trial.repeated.interval else None,
    "repeated_probability_better": lambda trial: trial.probability_better,
}
"""Columns by name, in the order of a CSV file. Names are never renamed: programs read them."""
AS_SHOWN = {"best_at": "best_step", "tokens": "num_tokens", "time": "seat_s", "cost": "cost_share"}
"""Headings of the table that are shorter than the column's name."""
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EXPRESSION = re.compile(r"\s*([\w./-]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")


def wanted_trials(
    comparison: Comparison, *, filters: Sequence[str] = (), sort: str | None = None, top: int | None = None
) -> list[ComparedTrial]:
    """The trials that pass every filter, in the order asked for, else by rank; the first `top` and every baseline.

    filters: such as state=COMPLETED or lora.r>=16. sort: a column, descending behind a `-`; what has no value comes
    last either way. Raises UserError for a field that there is not, with the nearest, and a value that does not suit.
    """
    kinds = _kinds(comparison)
    tests = [_test(expression, comparison, kinds) for expression in filters]
    chosen = [trial for trial in comparison.trials if all(test(trial) for test in tests)]
    if sort is not None:
        field = _known(sort.removeprefix("-"), comparison, kinds, where=f"--sort {sort}")
        known = [trial for trial in chosen if field_value(trial, field) is not None]
        known.sort(key=lambda trial: _sortable(field_value(trial, field)), reverse=sort.startswith("-"))
        chosen = known + [trial for trial in chosen if field_value(trial, field) is None]
    if top is None:
        return chosen
    return [trial for place, trial in enumerate(chosen) if place < top or trial.is_baseline]


def field_value(trial: ComparedTrial, field: str) -> Value:
    """A column's value, or that of a hyperparameter by dotted field; none where the trial has none."""
    return COLUMNS[field](trial) if field in COLUMNS else trial.facts.hyperparameters.get(field)


def hyperparameter_fields(comparison: Comparison) -> list[str]:
    """Dotted fields that any trial has, searched or not, sorted."""
    return sorted({field for trial in comparison.trials for field in trial.facts.hyperparameters})


def _kinds(comparison: Comparison) -> dict[str, type | None]:
    """Of each field bool, float or str; none where no trial has a value."""
    kinds: dict[str, type | None] = {}
    for field in (*COLUMNS, *hyperparameter_fields(comparison)):
        values = (field_value(trial, field) for trial in comparison.trials)
        value = next((value for value in values if value is not None), None)
        kinds[field] = None if value is None else float if type(value) in (int, float) else type(value)
    return kinds


def _test(expression: str, comparison: Comparison, kinds: Mapping[str, type | None]) -> Callable[[ComparedTrial], bool]:
    where = f"--filter {expression!r}"
    parts = EXPRESSION.fullmatch(expression)
    if parts is None or not parts[3]:
        raise UserError(f"{where} is no comparison. Write FIELD, one of = != < <= > >=, and a value: lora.r>=16.")
    name, sign, text = parts.groups()
    field = _known(name, comparison, kinds, where=where)
    wanted = _value(text, field, kinds[field], where=where)
    if sign in COMPARISONS:
        if kinds[field] in (str, bool):
            raise UserError(f"{where}: {name} has no order, so that {sign} cannot compare it. Use = or !=.")
        compare = COMPARISONS[sign]
        return lambda trial: (value := field_value(trial, field)) is not None and compare(value, wanted)
    return lambda trial: _same(field_value(trial, field), wanted) == (sign != "!=")


def _known(name: str, comparison: Comparison, kinds: Mapping[str, type | None], *, where: str) -> str:
    """The field of a name as a person writes it: a column, its heading, the metric, or a dotted hyperparameter."""
    field = "score" if name == comparison.metric else AS_SHOWN.get(name, name)
    if field in kinds:
        return field
    same_ending = [other for other in kinds if "." in other and other.rsplit(".", 1)[1] == name]
    synonym = SYNONYMS.get(name, "")
    names = [*kinds, *AS_SHOWN, comparison.metric]
    guess = same_ending[0] if same_ending else synonym if synonym in kinds else nearest(name, names)
    columns = ", ".join([comparison.metric, *COLUMNS])
    remedy = f"Did you mean {guess}?" if guess else f"There are {columns}, and hyperparameters such as lora.r."
    raise UserError(f"{where}: there is no field {name}. {remedy}")


def _value(text: str, field: str, kind: type | None, *, where: str) -> Value:
    """The right side of a filter, as the field's values are."""
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise UserError(f"{where}: {field} is a number, and {text} is none.") from None
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{where}: {field} is true or false, not {text}.")
        return text.lower() == "true"
    if field == "state" and text.upper() not in list(TrialState):
        guess = nearest(text.upper(), list(TrialState))
        remedy = f"Did you mean {guess}?" if guess else f"States are {', '.join(TrialState)}."
        raise UserError(f"{where}: {text} is no state of a trial. {remedy}")
    return text


def _same(value: Value, wanted: Value) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value.lower() == wanted.lower()
    if isinstance(value, int | float) and isinstance(wanted, float):
        return isclose(value, wanted, rel_tol=1e-9)
    return value == wanted


def _sortable(value: Value) -> Any:
    """Numbers before texts, should a field hold both."""
    return (isinstance(value, str), value)
