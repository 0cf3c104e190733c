"""Datasets of the Hugging Face hub, by id: hub:owner/name[@revision][[subset]][:split].

Fetched through the `datasets` library, which is loaded only when such an id is used. No remote code is ever run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pharos.errors import DataError

PREFIX = "hub:"
_ID = re.compile(
    r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[^\[\]:@]+))?(\[(?P<subset>[^\[\]]+)\])?(:(?P<split>[\w.]+))?"
)
EXAMPLE = "hub:owner/name, with @revision, [subset] and :split where they are needed, in this order"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubId:
    name: str
    revision: str | None
    subset: str | None
    split: str


def is_hub_id(name: str) -> bool:
    return name.startswith(PREFIX)


def id_mistake(name: str) -> str | None:
    """What is wrong with an id that begins with hub:, none where it can be asked for."""
    return None if _ID.fullmatch(name) else f"not an id of a dataset of the hub. Write {EXAMPLE}."


def parse_id(name: str) -> HubId:
    match = _ID.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} is not an id of a dataset of the hub. Write {EXAMPLE}.")
    parts = match.groupdict()
    return HubId(
        name=parts["name"], revision=parts["revision"], subset=parts["subset"], split=parts["split"] or "train"
    )


def content_digest(name: str, key: str) -> str:
    """SHA-256 of the dataset's rows as they lie in its Arrow files. Raises DataError where it cannot be had."""
    try:
        dataset = _load(name)
    except DataError as error:
        raise DataError(f"{key}: {error.message}") from error
    digest = hashlib.sha256()
    for file in dataset.cache_files:
        with open(file["filename"], "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def batches(name: str, size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of a dataset, `size` at a time, mapped from disk. Raises DataError where it cannot be had."""
    dataset = _load(name)
    for batch in dataset.with_format("arrow").iter(batch_size=size):
        yield batch.to_pylist()


@lru_cache(maxsize=8)
def _load(name: str) -> Any:
    """The dataset, from the local cache or downloaded once."""
    import datasets

    wanted = parse_id(name)
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(wanted.name, name=wanted.subset, revision=wanted.revision, split=wanted.split)
    except Exception as error:  # datasets, huggingface_hub, httpx and pyarrow each raise their own
        raise DataError(f"{name} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    kind = type(error).__name__
    if kind in ("OfflineModeIsEnabled", "ConnectionError", "LocalEntryNotFoundError", "ConnectError", "ConnectTimeout"):
        return f"the hub is out of reach, and the dataset is not in the local cache ({first}). Fetch it once online."
    if kind == "DatasetNotFoundError":
        return f"{first}. Check the id and, for a private or gated one, log in with `hf auth login`."
    return f"{first}. Write {EXAMPLE}."
