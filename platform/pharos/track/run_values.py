"""Values as MLflow's runs hold them, there and back: everything is text, and of a bounded length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pharos.track.mlflow_client import shown

MAX_PARAM_LENGTH = 6000


def in_ms(time_s: float) -> int:
    """Seconds since the epoch as MLflow's milliseconds."""
    return round(time_s * 1000)


def cut(text: str, length: int) -> str:
    """MLflow refuses longer values; the whole text stands in the event log, the whole spec in spec.json."""
    return text if len(text) <= length else text[: length - 1] + "…"


def as_params(values: Mapping[str, object]) -> dict[str, str]:
    """Parameters as MLflow takes them. What is not set has no parameter."""
    return {
        name: cut(value if isinstance(value, str) else json.dumps(value), MAX_PARAM_LENGTH)
        for name, value in values.items()
        if value is not None and value != ""
    }


def of_param(text: str) -> Any:
    """The value that `as_params` wrote: JSON, or a text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested sections as dotted names; an empty section has none."""
    found: dict[str, object] = {}
    for name, value in fields.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def without_password(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as it may be published: a tracking URI can hold a password."""
    tracking = dict(spec.get("tracking") or {})
    if tracking.get("uri"):
        tracking["uri"] = shown(tracking["uri"])
    return {**spec, "tracking": tracking} if tracking else dict(spec)
