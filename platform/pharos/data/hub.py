"""Datasets of the Hugging Face hub, by id: hub:owner/name[@revision][[subset]][:split].

Fetched through the `datasets` library, which is loaded only when such an id is used. No remote code is ever run. What
lies in the local cache is read from there: a commit without asking the hub, a branch also where the hub is away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pharos.errors import DataError
from pharos.hub import LOG_IN, HubAway, ask_hub, quiet

PREFIX = "hub:"
_ID = re.compile(
    r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[^\[\]:@]+))?(\[(?P<subset>[^\[\]]+)\])?(:(?P<split>[\w.]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
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
        raise DataError(f"{key}: {name} {error.message}") from error
    digest = hashlib.sha256()
    for file in dataset.cache_files:
        with open(file["filename"], "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def batches(name: str, size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of a dataset, `size` at a time, mapped from disk.

    Raises DataError where it cannot be had; the message leaves the name to the caller, as that of a file does.
    """
    dataset = _load(name)
    for batch in dataset.with_format("arrow").iter(batch_size=size):
        yield batch.to_pylist()


@lru_cache(maxsize=8)
def _load(name: str) -> Any:
    """The dataset, from the local cache or downloaded once."""
    wanted = parse_id(name)
    try:
        with _quiet():
            wanted, away = _pinned(wanted)
            prepared = _prepared(wanted)
            if prepared is not None:
                return prepared
            if away is not None:
                raise away
            return _downloaded(wanted)
    except Exception as error:  # datasets, huggingface_hub, httpx2 and pyarrow each raise their own
        raise DataError(f"cannot be read: {_reason(wanted, error)}") from error


def _pinned(wanted: HubId) -> tuple[HubId, HubAway | None]:
    """The id with the commit that its revision is now, and what keeps the hub from saying so, none where it says it.

    Away from the hub a branch is what it was when the hub was last asked; `datasets` alone would then take whatever
    commit it has cached, also for a revision that is given.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    if _COMMIT.fullmatch(wanted.revision or "") and _prepared_folder(wanted) is not None:
        return wanted, None
    away = None
    try:
        wanted = replace(wanted, name=ask_hub("dataset", wanted.name, revision=wanted.revision).id)
    except HubAway as error:
        away = error
    try:  # asked for a second time, the hub's library notes the commit in its cache, for a day without the hub
        commit = HfApi().resolve_revision(
            wanted.name, repo_type="dataset", revision=wanted.revision, local_files_only=away is not None
        )
    except RevisionResolutionError as error:
        raise away or error from None
    return replace(wanted, revision=commit.resolved), away


def _downloaded(wanted: HubId) -> Any:
    """The dataset of a commit, fetched. The prefix keeps out a local directory that happens to have its name."""
    import datasets

    return datasets.load_dataset(
        f"hf://datasets/{wanted.name}", name=wanted.subset, revision=wanted.revision, split=wanted.split
    )


def _prepared(wanted: HubId) -> Any | None:
    """The dataset of a commit from the Arrow files of an earlier download, none where there are none."""
    from datasets.packaged_modules.cache.cache import Cache

    folder = _prepared_folder(wanted)
    if folder is None:
        return None
    subset, version, commit = folder.parts[-3:]
    name = wanted.name.rpartition("/")[2]
    builder = Cache(repo_id=wanted.name, dataset_name=name, config_name=subset, version=version, hash=commit)
    return builder.as_dataset(split=wanted.split)


def _prepared_folder(wanted: HubId) -> Path | None:
    """Where `datasets` keeps a subset of a commit: OWNER___NAME/SUBSET/VERSION/COMMIT below its cache."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = wanted.name.rpartition("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / f"{owner}___{camelcase_to_snakecase(name)}"
    found = sorted((folder / (wanted.subset or _default_subset(wanted))).glob(f"*/{wanted.revision}/dataset_info.json"))
    return found[-1].parent if found else None


def _default_subset(wanted: HubId) -> str:
    """The subset that an id without one means, by the dataset's card in the cache."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, try_to_load_from_cache

    card = try_to_load_from_cache(wanted.name, "README.md", revision=wanted.revision, repo_type="dataset")
    if not isinstance(card, str):
        return "default"
    subsets = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
    return subsets.get_default_config_name() or "default"


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no warnings of `datasets` and what it downloads with."""
    import datasets

    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        with quiet():
            yield
    finally:
        datasets.logging.set_verbosity(verbosity)


def _reason(wanted: HubId, error: Exception) -> str:
    """Why, and what would help, in one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"HubAway", "TransportError", "LocalEntryNotFoundError", "ConnectionError"}:
        return f"the hub is out of reach, and the dataset is not in the local cache ({lines[0]}). Fetch it once online."
    if "RevisionNotFoundError" in names:
        return f"the hub has no revision {wanted.revision} of {wanted.name}. Check it, or leave it out for the newest."
    if "GatedRepoError" in names or "is a gated dataset" in lines[0]:
        page = f"{constants.ENDPOINT}/datasets/{wanted.name}"
        return f"it is gated, and the hub does not let you in. Accept its terms at {page}, then {LOG_IN}."
    if names & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return f"the hub has no dataset {wanted.name}, or it is private. Check the id; for a private one {LOG_IN}."
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"the hub refuses the token that it was sent. Use another: {LOG_IN}."
    said = ". ".join(lines[:2]) if lines[0] == "Config name is missing" else lines[0]
    return f"{said}. Write {EXAMPLE}."
