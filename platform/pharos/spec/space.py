"""Domains of the search space: what one holds, and whether it suits the field that it is given for. Pure.

How a sampler draws from a domain lives with the search; how domains and other fields go together, in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite, prod
from typing import Any

from pydantic import ValidationError

from pharos.spec.fields import SpecField, is_base_key, nearest, searchable_fields, spec_fields
from pharos.spec.model import (
    Choice,
    Domain,
    LogUniform,
    LoraSpec,
    OneMinusLogUniform,
    OptimSpec,
    Ordered,
    Scalar,
    Section,
    TrainSpec,
    Uniform,
)

DISCRETE = ("ordered", "choice")
CONTINUOUS = ("uniform", "log_uniform", "one_minus_log_uniform")
# Searched by their distance from 1, which spans decades: 0.9, 0.99, 0.999.
NEAR_ONE_FIELDS = ("optim.adam_beta1", "optim.adam_beta2")

_SECTIONS: dict[str, type[Section]] = {"lora": LoraSpec, "optim": OptimSpec, "train": TrainSpec}
_BOUNDS_RULES = {
    "uniform": (-inf, inf, "low < high"),
    "log_uniform": (0.0, inf, "0 < low < high"),
    "one_minus_log_uniform": (0.0, 1.0, "0 < low < high < 1"),
}


def domain_kind(domain: Domain) -> str:
    """The key a user writes: ordered, choice, uniform, log_uniform or one_minus_log_uniform."""
    return domain_kind_of(type(domain))


def domain_kind_of(domain_type: type[Domain]) -> str:
    """The same of the type of a domain."""
    return next(iter(domain_type.model_fields))


def domain_of(kind: str, values: Any) -> Domain | None:
    """The domain that a sweep's record holds, as {kind: values}; none where it is not one that this version knows."""
    known = {domain_kind_of(domain): domain for domain in (Ordered, Choice, Uniform, LogUniform, OneMinusLogUniform)}
    try:
        return known[kind].model_validate({kind: values}) if kind in known else None
    except ValidationError:
        return None


def domain_values(domain: Domain) -> tuple[Scalar, ...] | None:
    """The values of a discrete domain, in the user's order; none for a continuous one."""
    match domain:
        case Ordered(ordered=values) | Choice(choice=values):
            return tuple(values)
    return None


def domain_bounds(domain: Domain) -> tuple[float, float] | None:
    """(low, high) of a continuous domain; none for a discrete one."""
    match domain:
        case Uniform(uniform=[low, high]) | LogUniform(log_uniform=[low, high]):
            return float(low), float(high)
        case OneMinusLogUniform(one_minus_log_uniform=[low, high]):
            return float(low), float(high)
    return None


def num_points(space: Mapping[str, Domain]) -> int | None:
    """How many combinations an all-discrete space holds; none where a domain is continuous."""
    values = [domain_values(domain) for domain in space.values()]
    return prod(len(each) for each in values if each is not None) if None not in values else None


def domain_problem(key: str, domain: Any) -> str | None:
    """Why `domain`, as read from the file, cannot be searched for the dotted field `key`; none where it can.

    The text completes "search.space.<key>=<domain> ...".
    """
    if key not in searchable_fields():
        return _field_problem(key, domain)
    return _shape_problem(key, domain) or _domain_problem(key, *next(iter(domain.items())))


def value_problem(key: str, value: Any) -> str | None:
    """Why a searched field cannot take `value`; none where it can. Completes "it must be ..."."""
    # The derived field sets lora_alpha to a multiple of r, so it has alpha's range.
    own_key = "lora.lora_alpha" if key == "lora.alpha_over_r" else key
    section, name = own_key.split(".")
    try:
        _SECTIONS[section].model_validate({name: value})
    except ValidationError:
        finite = not isinstance(value, float) or isfinite(value)
        return spec_fields()[own_key].expected.removesuffix(" or null") if finite else "finite"
    return "a value to search for" if value is None else None


def example_domain(key: str) -> str:
    """A domain that makes sense for the searchable field `key`, as a user would write it."""
    examples = {
        "optim.learning_rate": "{log_uniform: [1e-5, 1e-2]}",
        "optim.adam_beta1": "{one_minus_log_uniform: [0.8, 0.99]}",
        "optim.adam_beta2": "{one_minus_log_uniform: [0.9, 0.9999]}",
        "optim.adam_epsilon": "{log_uniform: [1e-9, 1e-6]}",
        "lora.alpha_over_r": "{ordered: [1, 2, 4]}",
        "train.batch_size": "{ordered: [8, 16, 32]}",
        "train.seed": "{choice: [0, 1, 2]}",
        "train.data_seed": "{choice: [0, 1, 2]}",
        "train.max_steps": "{ordered: [100, 200, 400]}",
        "lora.lora_alpha": "{ordered: [8, 16, 32]}",
        "train.num_train_epochs": "{ordered: [1, 2, 4]}",
        "optim.max_grad_norm": "{uniform: [0.5, 2.0]}",
    }
    if key in examples:
        return examples[key]
    field = spec_fields()[key]
    if field.kind in ("truth value", "text"):
        return f"{{choice: [{', '.join(field.choices) or 'false, true'}]}}"
    return "{ordered: [2, 4, 8]}" if field.kind == "whole number" else "{uniform: [0.0, 0.2]}"


def _field_problem(key: str, domain: Any) -> str:
    field = spec_fields().get(key)
    if key and field and field.kind == "section":
        inner = next(iter(domain), None) if isinstance(domain, dict) else None
        name = inner if f"{key}.{inner}" in spec_fields() else "<field>"
        return f"is a section. Fields of the space have dotted names: write {key}.{name}: {{...}} directly under space."
    if field and is_base_key(key):
        return (
            "cannot be searched: it changes the frozen computation that all trials of a pool share (the base key). "
            f"Make one sweep per value of {key}."
        )
    if field:
        return f"cannot be searched: it is not a hyperparameter of a single trial. Set {key} itself."
    same_name = [other for other in searchable_fields() if other.split(".")[1] == key.rsplit(".", 1)[-1]]
    guess = same_name[0] if same_name else nearest(key, searchable_fields())
    remedy = f"Did you mean {guess}?" if guess else f"Fields that can be: {', '.join(searchable_fields())}."
    return f"cannot be searched: there is no field {key}. {remedy}"


def _shape_problem(key: str, domain: Any) -> str | None:
    example = example_domain(key)
    if isinstance(domain, list):
        return f"is a list without a kind. Say how to search it, as in {example}"
    if not isinstance(domain, dict):
        return f"is not a domain: fixed values go in the section itself ({key}). To search it, write {example}"
    if not domain:
        return f"is empty: say how to search it, as in {example}"
    unknown = [kind for kind in domain if kind not in DISCRETE + CONTINUOUS]
    if unknown:
        guess = nearest(unknown[0], DISCRETE + CONTINUOUS)
        remedy = f"Did you mean {guess}?" if guess else f"Kinds: {', '.join(DISCRETE + CONTINUOUS)}."
        return f"has an unknown kind of domain, {unknown[0]}. {remedy}"
    if len(domain) > 1:
        return f"has {len(domain)} kinds of domain, {' and '.join(domain)}. Keep one."
    [(kind, values)] = domain.items()
    if not isinstance(values, list):
        return f"needs a list after {kind}, as in {example}"
    if kind in DISCRETE and len(values) < 2:
        return f"needs two values or more: fixed values go in the section itself ({key})."
    if kind in CONTINUOUS and len(values) != 2:
        return f"needs exactly two ends, [low, high], not {len(values)}. For single values write {{ordered: [...]}}"
    return None


def _domain_problem(key: str, kind: str, values: list[Any]) -> str | None:
    field = spec_fields().get(key) or spec_fields()["lora.lora_alpha"]
    kind_problem = _kind_problem(field, key, kind)
    if kind_problem:
        return kind_problem
    for value in values:
        problem = value_problem(key, value)
        if problem:
            return f"holds {_shown(value)}, but {key} must be {problem}."
    if kind in DISCRETE:
        return _discrete_problem(kind, values)
    low, high = values
    above, below, rule = _BOUNDS_RULES[kind]
    if not (above < low < high < below and isfinite(low) and isfinite(high)):
        swapped = f" Write [{_shown(high)}, {_shown(low)}]." if above < high < low < below else ""
        zero = " Use uniform, or begin above 0." if kind == "log_uniform" and low == 0 else ""
        return f"has the ends {_shown(low)} and {_shown(high)}, but {kind} needs {rule}.{swapped}{zero}"
    return None


def _kind_problem(field: SpecField, key: str, kind: str) -> str | None:
    if field.kind in ("truth value", "text") and kind != "choice":
        values = ", ".join(field.choices) or "true, false"
        return f"must be a choice: {kind} needs numbers, and {key} is {field.expected}. Write {{choice: [{values}]}}"
    if field.kind == "whole number" and kind in CONTINUOUS:
        return f"must be ordered or choice: {key} is a whole number. Write {example_domain(key)}"
    if kind == "one_minus_log_uniform" and key not in NEAR_ONE_FIELDS:
        fields = " and ".join(NEAR_ONE_FIELDS)
        return f"cannot be {kind}, which is for fractions near 1 ({fields}). Use log_uniform or uniform."
    return None


def _discrete_problem(kind: str, values: list[Any]) -> str | None:
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        return f"holds {_shown(twice[0])} twice. Remove one."
    if kind == "ordered" and values != sorted(values):
        return f"must ascend. Write {{ordered: [{', '.join(_shown(value) for value in sorted(values))}]}}"
    return None


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
