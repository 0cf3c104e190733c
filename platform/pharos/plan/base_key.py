"""The base key: one short word for all values that change the frozen computation. Pure.

Trials with one base key can share a pool. Which fields those are stands in the spec room.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from pharos.plan.facts import BaseFacts, DataFacts
from pharos.spec.model import BASE_KEY_FIELDS, SweepSpec

BASE_KEY_LENGTH = 12
"""Hexadecimal digits: 48 bits, plenty for the few keys of one sweep, and short enough to read."""


def base_key(spec: SweepSpec, base: BaseFacts, data: DataFacts) -> str:
    """Digest of the spec's base-key fields and of what lies behind their names: weights, tokenizer and rows."""
    values: dict[str, Any] = {field: _value(spec, field) for field in BASE_KEY_FIELDS}
    values |= {"base_digest": base.digest, "tokenizer_digest": base.tokenizer_digest, "data_digest": data.digest}
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:BASE_KEY_LENGTH]


def _value(spec: SweepSpec, field: str) -> Any:
    """The value of a dotted field; a section as a whole where the field ends with `.*`."""
    value: Any = spec
    for name in field.removesuffix(".*").split("."):
        value = getattr(value, name)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
