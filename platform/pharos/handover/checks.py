"""What a registered version must stand before it may be the champion: files, base, tokenizer and logits are checked.

Each check raises HandOverError with the reason: nobody's mistake in typing, the version itself is not in order. What
the checks need and cannot find (a base that moved, prepared rows that are gone) is a ModelError: say where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pharos.data.prepare import load_prepared, open_split, own_chat_template
from pharos.errors import HandOverError, ModelError
from pharos.model.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pharos.model.base_files import read_json_object
from pharos.model.facts import TOKENIZER_FILES, directory_digest
from pharos.model.merge import MANIFEST, adapter_digest, verify_manifest
from pharos.model.parity import Parity, check_parity
from pharos.store.mirror import fetch_folder, local_storage
from pharos.track.model_versions import ADAPTER, FoundVersion, version_folder

NUM_PARITY_ROWS = 16
CHAT_TEMPLATE = "chat_template.jinja"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A version whose files are in order. data_dir: the prepared rows of its sweep."""

    merged: Path
    data_dir: Path
    parity: Parity


def check_version(
    found: FoundVersion, *, storage: Path, files: Path, base: Path | None, device: str, progress: Progress
) -> Checked:
    """Verify a version against its manifest, its adapter and its base, and repeat the parity check.

    Args:
        storage: of the sweeps, absolute: where prepared rows and built-in bases are.
        files: where the version's files are fetched to, from a server.
        base: the directory of the original base, where it has moved.
    """
    progress(f"verifying the files of {found.shown}")
    merged = verified_folder(found, files)
    adapter = version_folder(found, ADAPTER, cache=files)
    manifest = read_json_object(merged / MANIFEST)
    _check_adapter(found, adapter, manifest)
    data_dir = data_folder(found, storage)
    base_dir = _base_folder(found, adapter, str(manifest.get("base_digest")), storage, base)
    check_tokenizer(merged, base_dir, own_chat_template(data_dir))
    _check_code(found, merged, base_dir)
    progress(f"comparing {found.shown} with its base and its adapter")
    rows = open_split(data_dir, "eval")
    held_out = [rows.row(index)[0].tolist() for index in range(min(NUM_PARITY_ROWS, len(rows)))]
    trusts = trusts_remote_code(found)
    parity = check_parity(base_dir, adapter, merged, held_out, device=device, trust_remote_code=trusts)
    return Checked(merged=merged, data_dir=data_dir, parity=parity)


def verified_folder(found: FoundVersion, files: Path) -> Path:
    """The version's merged model, every file of which is what was written, and no other is beside them."""
    merged = version_folder(found, cache=files)
    verify_manifest(merged)
    listed = set(read_json_object(merged / MANIFEST)["files"]) | {MANIFEST}
    others = {path.relative_to(merged).as_posix() for path in merged.rglob("*") if path.is_file()} - listed
    if others:
        raise HandOverError(
            f"{found.shown} holds what nobody merged: {', '.join(sorted(others)[:5])} in {merged}, and {MANIFEST} does "
            "not list it."
        )
    return merged


def data_folder(found: FoundVersion, storage: Path) -> Path:
    """The prepared rows that the version's sweep was trained, evaluated and tested on."""
    digest = found.tags.get("pharos.digest.data", "")
    storages = [
        storage,
        *([local_storage(found.tags["pharos.origin.storage"])] if "pharos.origin.storage" in found.tags else []),
    ]
    for place in storages:
        folder = place / "cache" / digest
        if digest and fetch_folder(folder) and (folder / "manifest.json").is_file():
            load_prepared(folder)
            return folder
    raise ModelError(
        f"{found.shown} is checked on the rows of its sweep {found.tags.get('pharos.sweep', '')}, which should be in "
        f"{storage / 'cache' / digest} and are not. Name the storage of that sweep with --storage, or run the sweep "
        "again there, which prepares them."
    )


def check_tokenizer(merged: Path, base_dir: Path, own_template: str | None) -> None:
    """Raise HandOverError unless the tokenizer is the base's, file by file, but for the template of the rows."""
    for name in TOKENIZER_FILES:
        expected = _bytes(base_dir / name)
        if name == CHAT_TEMPLATE and own_template is not None:
            expected = own_template.encode()
        if _bytes(merged / name) != expected:
            kind = "chat template" if name.startswith("chat_template") else "tokenizer"
            what = "is missing" if not (merged / name).is_file() else "is not the one that it was trained with"
            raise HandOverError(
                f"The {kind} of {merged} has changed: its {name} {what} (the base: {base_dir}). The model would read "
                "and write other tokens than those it has learned."
            )


def trusts_remote_code(found: FoundVersion) -> bool:
    """Whether the sweep's file let the model bring its own code."""
    return found.tags.get("pharos.origin.trust_remote_code") == "true"


def tokenizer_files(directory: Path) -> dict[str, bytes]:
    """The content of the tokenizer's files, without templates: two models with the same read tokens alike."""
    names = [name for name in TOKENIZER_FILES if not name.startswith("chat_template")]
    return {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}


def chat_template(directory: Path) -> bytes | None:
    return _bytes(directory / CHAT_TEMPLATE)


def _check_adapter(found: FoundVersion, adapter: Path, manifest: dict[str, Any]) -> None:
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (adapter / name).is_file():
            raise HandOverError(f"{found.shown}: {adapter / name} is missing, so its merge cannot be checked.")
    if adapter_digest(adapter) != manifest.get("adapter_digest"):
        raise HandOverError(
            f"{found.shown}: the adapter in {adapter} is not the one that was merged, by the digest in {MANIFEST}."
        )


def _base_folder(found: FoundVersion, adapter: Path, digest: str, storage: Path, base: Path | None) -> Path:
    """The original base: the one with the digest that the manifest holds."""
    written = read_json_object(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    named = [Path(str(written))] if written else []
    named += [Path(found.tags["pharos.origin.base_directory"])] if "pharos.origin.base_directory" in found.tags else []
    places = [base] if base else [*named, *(storage / "cache" / place.name for place in named)]
    there = [place for place in dict.fromkeys(places) if fetch_folder(place) and (place / "config.json").is_file()]
    for place in there:
        if directory_digest(place) == digest:
            return place.absolute()
    if there:
        raise ModelError(
            f"{found.shown} was merged into a base with digest {digest}, and {there[0]} holds another one, "
            f"{directory_digest(there[0])}. Put the base back, or give its directory: --base."
        )
    where = f"its base should be in {places[0]}, which holds no model" if places else "where its base lies is not known"
    raise ModelError(f"{found.shown}: {where}. Give the directory that it is in now: --base.")


def _check_code(found: FoundVersion, merged: Path, base_dir: Path) -> None:
    """Code that a model brings is run only as the base has it, which a commit pins."""
    for file in sorted(merged.glob("*.py")):
        if _bytes(base_dir / file.name) != file.read_bytes():
            raise HandOverError(f"{found.shown} brings code that its base has not: {file}. It is not run.")


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
