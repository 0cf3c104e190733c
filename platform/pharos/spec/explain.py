"""What the schema refuses, in the words of a sweep file: key=value, what is wrong, what would work.

Pydantic's errors come in, sentences go out. Rules about several fields at once live in `rules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pydantic_core import ErrorDetails

from pharos.spec.fields import SYNONYMS, SpecField, fields_of, nearest, spec_fields
from pharos.spec.model import DERIVED_FIELDS
from pharos.spec.positions import Document, KeyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A value that the schema refuses. path: of the field or of the unknown key."""

    path: KeyPath
    message: str


def schema_faults(errors: Iterable[ErrorDetails], document: Document) -> list[Fault]:
    """One fault for every field that pydantic refused, however many alternatives of its type it tried."""
    faults: dict[KeyPath, Fault] = {}
    for error in errors:
        path = _field_path(error["loc"])
        unknown = error["type"] == "extra_forbidden" and path == error["loc"][:-1]
        path = error["loc"] if unknown else path
        if unknown:
            message = _unknown_key(path, document.text(path))
        elif error["type"] == "missing":
            message = _missing(path)
        else:
            message = _refused_value(path, _value_at(document.value, path), document.text(path))
        faults[path] = Fault(path=path, message=message)
    return list(faults.values())


def empty_section(key: str) -> str:
    """The message for a section with nothing in it, as where all its lines are commented out."""
    remedy = "Give it fields" if spec_fields()[key].required else "Remove the line, or give it fields"
    return f"{key} is empty. {remedy}: {', '.join(fields_of(key))}."


def _field_path(location: KeyPath) -> KeyPath:
    """The field within pydantic's location, which goes on into items and alternatives of its type."""
    path: KeyPath = ()
    for part in location:
        if part not in fields_of(".".join(map(str, path))):
            break
        path = (*path, part)
    return path


def _value_at(value: Any, path: KeyPath) -> Any:
    for part in path:
        value = value[part]
    return value


def _unknown_key(path: KeyPath, text: str) -> str:
    section, name = ".".join(map(str, path[:-1])), str(path[-1])
    key = f"{section}.{name}" if section else name
    head = f"{key}={text or 'null'} is not a field of {section or 'a sweep'}."
    if ":" in name:
        return f"{head} Write a space after the colon."
    if key in DERIVED_FIELDS:
        return f"{head} It can only be searched: put {key} under search.space, or set lora.lora_alpha."
    if key in spec_fields():  # a dotted key where a section stands
        outer, _, inner = key.rpartition(".")
        return f"{head} Dots do not open a section: write {inner} within {outer}."
    near = nearest(name, fields_of(section))
    owners = [other for other in spec_fields() if other.rpartition(".")[2] == name]
    if name in SYNONYMS and not (owners and section):
        return f"{head} Here it is {SYNONYMS[name]}."
    if near and not owners:
        return f"{head} Did you mean {near}?"
    if owners:
        where = " or in ".join(other.rpartition(".")[0] or "no section" for other in owners)
        return (
            f"{head} It belongs in {where}."
            if where != "no section"
            else f"{head} It belongs in no section: unindent it."
        )
    guess = nearest(name, {other.rpartition(".")[2]: other for other in spec_fields()})
    if guess:
        full = next(other for other in spec_fields() if other.rpartition(".")[2] == guess)
        return f"{head} Did you mean {full}?"
    return f"{head} Its fields: {', '.join(fields_of(section))}."


def _missing(path: KeyPath) -> str:
    key = ".".join(map(str, path))
    field = spec_fields()[key]
    return f"{key} is missing: {field.expected if field.kind == 'space' else field.description or field.expected}."


def _refused_value(path: KeyPath, value: Any, text: str) -> str:
    key = ".".join(map(str, path))
    field = spec_fields()[key]
    if field.kind == "section" and value is None:
        return empty_section(key)
    if field.kind == "section":
        colon = " Write a space after the colon." if isinstance(value, str) and ":" in value else ""
        return f"{key}={text} must be a section with fields: {', '.join(fields_of(key))}.{colon}"
    return f"{key}={text or 'null'} must be {field.expected}.{_hint(field, value)}"


def _hint(field: SpecField, value: Any) -> str:
    if value is None:
        return "" if field.required or field.default is None else f" Remove the line for {_yaml(field.default)}."
    if field.kind == "truth value":
        return _truth_hint(value)
    if field.kind in ("whole number", "number"):
        return _number_hint(field, value)
    if field.key == "name" and isinstance(value, str):
        slug = re.sub(r"[^a-z0-9._-]+", "-", value.lower()).strip("._-")[:63]
        return f" Try {slug}." if slug else ""
    guess = nearest(value, field.choices) if isinstance(value, str) else None
    if guess:
        return f" Did you mean {guess}?"
    if isinstance(value, str) and "a list" in field.expected:
        return f" Write [{value}]."
    if field.kind == "text" and isinstance(value, bool | int | float):
        return f' Put text that looks otherwise in quotes: "{_yaml(value)}".'
    return ""


def _truth_hint(value: Any) -> str:
    word = str(value).lower()
    if isinstance(value, str) and word in ("true", "false"):
        return " Remove the quotes."
    if word in ("yes", "y", "on", "1"):
        return f" Write true: {word} is no truth value."
    if word in ("no", "n", "off", "0"):
        return f" Write false: {word} is no truth value."
    return ""


def _number_hint(field: SpecField, value: Any) -> str:
    if isinstance(value, float) and not isfinite(value):
        return " It must be finite."
    if isinstance(value, float) and value.is_integer() and field.kind == "whole number":
        return f" Write {int(value)}."
    if isinstance(value, str):
        plain = value.replace("_", "").replace(",", "").strip()
        if re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?", plain, re.IGNORECASE):
            return f" Write the number {plain}, without quotes or separators."
    return ""


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
