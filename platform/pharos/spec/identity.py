"""What makes two specs the same: canonical JSON, its digest, and the difference between two. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pharos.spec.model import SweepSpec

MAY_CHANGE = ("search.num_trials", "search.confirm", "pool", "limits", "test", "register", "tracking", "keep")
"""Dotted prefixes of what may differ when a sweep is resumed: none of it changes a trial that already ran."""

_ABSENT = object()


def spec_to_json(spec: SweepSpec) -> dict[str, Any]:
    """The spec as the user would write it, defaults included; `SweepSpec.model_validate` reads it back."""
    return spec.model_dump(mode="json", by_alias=True)


def spec_digest(spec: SweepSpec) -> str:
    """SHA-256, hexadecimal, of the canonical JSON: the same however the file was written, 1 or 1.0, in any order."""
    return hashlib.sha256(_canonical(spec_to_json(spec)).encode()).hexdigest()


def spec_difference(old: Mapping[str, Any], new: Mapping[str, Any], *, ignore: Sequence[str] = ()) -> list[str]:
    """`key: old -> new` for every dotted field that differs between two results of `spec_to_json`.

    ignore: dotted prefixes to leave out, such as `MAY_CHANGE`.
    """
    return [
        f"{key}: {_shown(before)} -> {_shown(after)}"
        for key, before, after in _differences(old, new, "")
        if not any(key == prefix or key.startswith(f"{prefix}.") for prefix in ignore)
    ]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for name in [*old, *(name for name in new if name not in old)]:
        key, before, after = f"{prefix}{name}", old.get(name, _ABSENT), new.get(name, _ABSENT)
        # A domain is one value: its kind and its ends belong together.
        is_domain = prefix == "search.space."
        if isinstance(before, Mapping) and isinstance(after, Mapping) and not is_domain:
            yield from _differences(before, after, f"{key}.")
        elif before is _ABSENT or after is _ABSENT or _canonical(before) != _canonical(after):
            yield key, before, after


def _canonical(value: Any) -> str:
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain_numbers(value: Any) -> Any:
    """Whole floats as integers: a user's 1 and 1.0 are the same number, and so are they in a digest."""
    if isinstance(value, Mapping):
        return {key: _plain_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
