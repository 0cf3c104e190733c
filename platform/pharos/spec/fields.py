"""What the schema says of every field, in words a person reads: its kind, its range, its allowed values.

Read from `model.py` through its JSON schema, so nothing is said twice. Which combinations work lives in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from pharos.spec.model import (
    BASE_KEY_FIELDS,
    DERIVED_FIELDS,
    NOT_SEARCHABLE,
    SEARCHABLE_SECTIONS,
    SweepSpec,
)

Kind = Literal["whole number", "number", "truth value", "text", "list", "section", "space"]

# Names of other tools, and short ones that people type, with what they are called here.
SYNONYMS = MappingProxyType(
    {
        "model": "base",
        "model_name_or_path": "base",
        "dataset": "data.train",
        "lr": "optim.learning_rate",
        "betas": "optim.adam_beta1 and optim.adam_beta2",
        "eps": "optim.adam_epsilon",
        "scheduler": "optim.lr_scheduler_type",
        "warmup_steps": "optim.warmup_ratio",
        "rank": "lora.r",
        "alpha": "lora.lora_alpha",
        "dropout": "lora.lora_dropout",
        "epochs": "train.num_train_epochs",
        "per_device_train_batch_size": "train.micro_batch_size",
        "gradient_accumulation_steps": "train.batch_size, from which it follows",
        "gradient_checkpointing": "train.activation_checkpointing",
        "max_seq_length": "data.max_length",
        "formatting": "data.format",
        "conversation_style": "data.format",
        "column_map": "data.columns",
        "trials": "search.num_trials",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecField:
    """One field or section by its dotted key. expected: completes "it must be ..."; default: none where required."""

    key: str
    kind: Kind
    expected: str
    choices: tuple[str, ...] = ()
    description: str = ""
    default: Any = None
    required: bool = False


@cache
def spec_fields() -> Mapping[str, SpecField]:
    """Every field and section of a sweep file by its dotted key, in the order of the schema."""
    schema = SweepSpec.model_json_schema()
    found: dict[str, SpecField] = {}
    _collect(schema, schema["$defs"], "", found)
    return MappingProxyType(found)


def fields_of(section: str) -> list[str]:
    """Names of the fields directly within a section; the file itself is the section ""."""
    prefix = f"{section}." if section else ""
    inside = (key.removeprefix(prefix) for key in spec_fields() if key.startswith(prefix))
    return [name for name in inside if "." not in name]


def is_base_key(key: str) -> bool:
    """Whether the field changes the frozen computation that all trials of a pool share."""
    section = key.partition(".")[0]
    return key in BASE_KEY_FIELDS or f"{section}.*" in BASE_KEY_FIELDS


@cache
def searchable_fields() -> tuple[str, ...]:
    """Dotted fields that a search space may hold."""
    own = [
        field.key
        for field in spec_fields().values()
        if field.key.split(".")[0] in SEARCHABLE_SECTIONS and field.kind != "section"
    ]
    return (*(key for key in own if not is_base_key(key) and key not in NOT_SEARCHABLE), *DERIVED_FIELDS)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` was probably meant to be."""
    matches = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _collect(schema: dict[str, Any], definitions: dict[str, Any], prefix: str, found: dict[str, SpecField]) -> None:
    for name, inner in schema["properties"].items():
        key = f"{prefix}{name}"
        section = next((part["$ref"] for part in (inner, *inner.get("anyOf", ())) if "$ref" in part), None)
        found[key] = SpecField(
            key=key,
            kind="section" if section else _kind(inner),
            expected="a section: fields with their values" if section else _expected(key, inner),
            choices=_choices(inner),
            description=inner.get("description", ""),
            default=inner.get("default"),
            required=name in schema.get("required", ()),
        )
        if section:
            _collect(definitions[section.rsplit("/", 1)[1]], definitions, f"{key}.", found)


def _kind(schema: dict[str, Any]) -> Kind:
    kinds: dict[str, Kind] = {
        "integer": "whole number",
        "number": "number",
        "boolean": "truth value",
        "array": "list",
        "object": "space",
    }
    first = schema["anyOf"][0] if "anyOf" in schema else schema
    return kinds.get(first["type"], "text")


def _choices(schema: dict[str, Any]) -> tuple[str, ...]:
    if "anyOf" in schema:
        return tuple(choice for part in schema["anyOf"] for choice in _choices(part))
    return tuple(schema.get("enum", ())) or ((schema["const"],) if "const" in schema else ())


def _expected(key: str, schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_expected(key, part) for part in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "$ref" in schema.get("items", ()):
        return "a list of sections, each with path and weight"
    if "pattern" in schema:
        return "lower-case letters, digits, dots, dashes and underscores, at most 63, a letter or digit first"
    if schema.get("additionalProperties") == {"type": "string"}:
        return "names by key, as in {prompt: my_question, completion: my_answer}"
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "array": "a list of text",
        "object": "fields with their domains, such as optim.learning_rate: {log_uniform: [1e-5, 1e-2]}",
        "null": "null",
    }
    return words[schema["type"]] + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = " and ".join(f"{word} {schema[bound]:g}" for bound, word in words.items() if bound in schema)
    return f" of {bounds}" if bounds.startswith("at") else f" {bounds}".rstrip()
