"""Taking a model out: an adapter merged into its base, or a folder that plain PEFT or transformers load.

Every folder is whole or not there, and none that exists is touched. With each goes a model card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pharos.errors import HandOverError, ModelError, StorageError
from pharos.folders import write_folder
from pharos.handover.card import Form, model_card
from pharos.handover.card_facts import card_facts, hub_name
from pharos.handover.references import FoundModel, find_model
from pharos.model.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pharos.model.base_files import read_json_object, weight_files
from pharos.model.facts import TOKENIZER_FILES
from pharos.model.merge import CARD, CHAT_TEMPLATE, MANIFEST, add_card, merge_adapter, verify_manifest
from pharos.plan.paths import tracking_uri_of
from pharos.track.model_versions import ADAPTER, find_version, version_folder

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written. num_files, size_bytes: of the whole folder. base: of an adapter that does not
    say where its base lies on this machine: what to give as --base.
    """

    model: FoundModel
    form: Form
    directory: Path
    num_files: int
    size_bytes: int
    base: str | None = None


def merge(
    reference: str,
    *,
    output: Path,
    storage: Path,
    tracking_uri: str | None = None,
    base: Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Merge an adapter, or a trial's, into its base: `output` is then a plain model directory with a manifest.

    Raises ModelError where there is no such model, it has no adapter, the adapter cannot be merged into this base, or
    `output` exists; StorageError where it cannot be written.
    """
    found = find_model(reference, storage=storage, tracking_uri=tracking_uri, base=base)
    if found.adapter_dir is None:
        raise ModelError(
            f"{found.shown} is a whole model already: there is nothing to merge. "
            f"`pharos export {reference} --format merged` copies it."
        )
    _check_output(output, _size_bytes(weight_files(found.model_dir)))
    _merge(found, output, _card(found, "merged", output, storage, tracking_uri), progress)
    return _exported(found, "merged", output)


def export(
    reference: str,
    *,
    form: Form,
    output: Path,
    storage: Path,
    tracking_uri: str | None = None,
    base: Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a model as `output`: `adapter` for plain PEFT, `merged` for plain transformers.

    Raises ModelError where there is no such model, it has no adapter to export, or `output` exists; HandOverError where
    its files are not what was once written; StorageError where `output` cannot be written.
    """
    found = find_model(reference, storage=storage, tracking_uri=tracking_uri, base=base)
    adapter_dir = found.adapter_dir
    if form == "adapter":
        adapter_dir = adapter_dir or _adapter_of_version(found, storage, tracking_uri)
        _check_output(output, _size_bytes([adapter_dir / ADAPTER_WEIGHTS]))
        config = _adapter_config(found, adapter_dir)
        facts = card_facts(found, tracking_uri=tracking_uri or _registry(storage))
        facts = replace(facts, base_dir=config["base_model_name_or_path"])
        card = model_card(facts, form=form, folder=output.name)
        _write(output, lambda folder: _export_adapter(found, adapter_dir, config, folder, card))
    elif adapter_dir is not None:
        _check_output(output, _size_bytes(weight_files(found.model_dir)))
        _merge(found, output, _card(found, form, output, storage, tracking_uri), progress)
    else:
        if (found.model_dir / MANIFEST).is_file():
            verify_manifest(found.model_dir)
        _check_output(output, _size_bytes(found.model_dir.rglob("*")))
        card = _card(found, form, output, storage, tracking_uri)
        _write(output, lambda folder: _copy_model(found.model_dir, folder, card))
    return _exported(found, form, output)


def _merge(found: FoundModel, output: Path, card: str, progress: Progress | None) -> None:
    assert found.adapter_dir is not None
    template = found.chat_template.read_text(encoding="utf-8") if found.chat_template else None
    try:
        merge_adapter(
            found.model_dir, found.adapter_dir, output.absolute(), chat_template=template, card=card, progress=progress
        )
    except HandOverError as error:  # of an adapter and a base that a person has put together
        raise ModelError(error.message) from error
    except OSError as error:
        raise _not_written(output, error) from error


def _adapter_config(found: FoundModel, adapter_dir: Path) -> dict[str, Any]:
    """The adapter's own, with its base named so that PEFT finds it: by hub id and commit, or by where it lies."""
    config = read_json_object(adapter_dir / ADAPTER_CONFIG)
    if found.adapter_dir is not None:
        config["base_model_name_or_path"] = str(found.model_dir)
    hub = hub_name(Path(str(config.get("base_model_name_or_path"))))
    return config | ({} if hub is None else {"base_model_name_or_path": hub[0], "revision": hub[1]})


def _export_adapter(found: FoundModel, adapter_dir: Path, config: Mapping[str, Any], folder: Path, card: str) -> None:
    """PEFT's two files, and beside them the tokenizer and the template."""
    shutil.copyfile(adapter_dir / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (found.model_dir / name).is_file():
            shutil.copyfile(found.model_dir / name, folder / name)
    if found.chat_template is not None:
        shutil.copyfile(found.chat_template, folder / CHAT_TEMPLATE)
    (folder / CARD).write_text(card, encoding="utf-8")


def _copy_model(source: Path, folder: Path, card: str) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    if (folder / MANIFEST).is_file():
        add_card(folder, card)
    else:
        (folder / CARD).write_text(card, encoding="utf-8")


def _adapter_of_version(found: FoundModel, storage: Path, tracking_uri: str | None) -> Path:
    """The adapter that was registered beside a merged model."""
    if found.model is None or found.version is None:
        raise ModelError(
            f"{found.shown} is a whole model, and its adapter is not beside it. Name the registered version or the "
            "trial that it comes from, or use --format merged."
        )
    version = find_version(tracking_uri or _registry(storage), found.model, version=found.version)
    return version_folder(version, ADAPTER, cache=storage.absolute() / "cache")


def _card(found: FoundModel, form: Form, output: Path, storage: Path, tracking_uri: str | None) -> str:
    facts = card_facts(found, tracking_uri=tracking_uri or _registry(storage))
    return model_card(facts, form=form, folder=output.name)


def _registry(storage: Path) -> str:
    return tracking_uri_of(storage.absolute())


def _check_output(output: Path, needed_bytes: int) -> None:
    """Raise unless `output` is free and there is room for it."""
    if output.exists() or output.is_symlink():
        raise ModelError(f"--output {output} exists already, and nothing is overwritten. Name another, or move it.")
    there = next(parent for parent in output.absolute().parents if parent.exists())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < needed_bytes:
        raise StorageError(
            f"--output {output}: it needs {needed_bytes / 10**9:.1f} GB, and {there} has {free_bytes / 10**9:.1f} GB "
            "left. Make room, or name a directory elsewhere."
        )


def _write(output: Path, write: Callable[[Path], None]) -> None:
    try:
        write_folder(output.absolute(), write, is_whole=lambda folder: False)
    except OSError as error:
        raise _not_written(output, error) from error


def _not_written(output: Path, error: OSError) -> StorageError:
    return StorageError(f"--output {output} cannot be written: {error.strerror or error}. Nothing was left there.")


def _exported(found: FoundModel, form: Form, output: Path) -> Exported:
    files = [path for path in output.rglob("*") if path.is_file()]
    base = None
    if form == "adapter" and not Path(read_json_object(output / ADAPTER_CONFIG)["base_model_name_or_path"]).is_dir():
        base = str(found.model_dir) if found.adapter_dir is not None else "DIRECTORY-OF-THE-BASE"
    return Exported(
        model=found, form=form, directory=output, num_files=len(files), size_bytes=_size_bytes(files), base=base
    )


def _size_bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
