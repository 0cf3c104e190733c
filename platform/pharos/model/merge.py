"""Merging an adapter into the original base, shard by shard from file to file, and the manifest of what came out.

W + scaling * B @ A is computed in fp32 and cast once, to the dtype that W is stored in. Nothing here loads a model:
beyond the adapter, memory holds some blocks of a tensor, so a 70B model merges on a laptop. Tensors without an adapter
are copied byte for byte. What a merge returns from is on disk: every file, and the names of the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pharos.errors import HandOverError
from pharos.model.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pharos.model.adapter_updates import Update, read_updates
from pharos.model.base_files import StoredTensor, read_config, stored_tensors, weight_files
from pharos.model.facts import LAYER, directory_digest
from pharos.model.merge_shards import DTYPES, WrittenFile, write_shard

MANIFEST = "pharos_manifest.json"
CARD, CHAT_TEMPLATE = "README.md", "chat_template.jinja"
COPIED = (".json", ".jinja", ".txt", ".model")  # config, index, generation config, tokenizer, chat template


def merge_adapter(
    base_dir: Path,
    adapter_dir: Path,
    output_dir: Path,
    *,
    chat_template: str | None = None,
    card: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write base + adapter as a plain model directory with a manifest.

    It is written beside `output_dir` and renamed when whole; an earlier merge there is replaced.

    Args:
        chat_template: the Jinja text that the adapter was trained with, where it is not the base's own.
        card: the model card, Markdown; `add_card` adds one later.
        progress: told (bytes written, bytes in all) after each tensor.

    Raises HandOverError if the adapter is of a kind that cannot be merged, if one of its modules does not match exactly
    one weight in name and shape, if the base is stored in a dtype that cannot be merged into, if a weight that is used
    twice would have to become two, or if `output_dir` holds something else.
    """
    if output_dir.exists() and not (output_dir / MANIFEST).is_file():
        raise HandOverError(f"{output_dir} is already there and no merged model: it is not overwritten. Move it away.")
    tensors = stored_tensors(base_dir)
    updates = read_updates(adapter_dir)
    _refuse_tied(base_dir, updates)
    updates = match_weights(updates, tensors)

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.", dir=output_dir.parent))
    try:
        unfinished.chmod(0o755)
        total_bytes = sum(tensor.end - tensor.begin for tensor in tensors.values())
        written_bytes = 0

        def wrote(num_bytes: int) -> None:
            nonlocal written_bytes
            written_bytes += num_bytes
            if progress:
                progress(written_bytes, total_bytes)

        written: dict[str, WrittenFile] = {}
        for file in weight_files(base_dir):
            held = [tensor for tensor in tensors.values() if tensor.file == file]
            written[file.name] = write_shard(file, unfinished / file.name, held, updates, wrote)
        _copy_small_files(base_dir, unfinished)
        if chat_template is not None:
            (unfinished / CHAT_TEMPLATE).write_text(chat_template, encoding="utf-8")
        if card is not None:
            (unfinished / CARD).write_text(card, encoding="utf-8")
        _write_manifest(unfinished, base_dir, adapter_dir, written)
        _sync(unfinished)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        unfinished.rename(output_dir)
        _sync(output_dir.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def match_weights(updates: Mapping[str, Update], tensors: Mapping[str, StoredTensor]) -> dict[str, Update]:
    """Weight name -> what the adapter does to it; `updates` is by the adapter's own names of parameters.

    A weight may lack leading parts of the parameter's name: a checkpoint of the bare decoder has no `model.` in front.
    Raises HandOverError for a parameter without exactly one weight of its shape.
    """
    found: dict[str, Update] = {}
    for parameter, update in updates.items():
        parts = parameter.split(".")
        names = [name for start in range(len(parts) - 1) if (name := ".".join(parts[start:])) in tensors]
        if len(names) != 1:
            matches = f"{len(names)} weights: {', '.join(names)}" if names else "no weight"
            raise HandOverError(
                f"The adapter's module {update.module} matches {matches} of the base. Is it of another base?"
            )
        weight = tensors[names[0]]
        if weight.shape != update.shape:
            raise HandOverError(
                f"The adapter's module {update.module} is for a weight of shape {update.shape}, the base's has "
                f"{weight.shape}. Is it of another base?"
            )
        if weight.dtype not in DTYPES:
            raise HandOverError(
                f"{weight.name} is stored as {weight.dtype}, into which an adapter cannot be merged. It must be one of "
                f"{', '.join(DTYPES)}."
            )
        if names[0] in found:
            raise HandOverError(
                f"The adapter's modules {found[names[0]].module} and {update.module} match one weight: {names[0]}."
            )
        found[names[0]] = update
    return found


def add_card(directory: Path, card: str) -> None:
    """Put a model card into a merged model, or in place of the one there, and into its manifest."""
    (directory / CARD).write_text(card, encoding="utf-8")
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][CARD] = asdict(_fingerprint(directory / CARD))
    _sync(directory / CARD)
    unfinished = directory / f".{MANIFEST}.unfinished"
    unfinished.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    _sync(unfinished)
    unfinished.replace(directory / MANIFEST)
    _sync(directory)


def verify_manifest(directory: Path) -> None:
    """Raise HandOverError unless every file of a merged model is there with the content that was written."""
    try:
        files = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise HandOverError(
            f"{directory} has no readable {MANIFEST}: it is no merged model, or half of one."
        ) from error
    for name, expected in files.items():
        file = directory / name
        if not file.is_file():
            raise HandOverError(f"{file} is missing, though {MANIFEST} lists it.")
        if file.stat().st_size != expected["size_bytes"]:
            raise HandOverError(f"{file} has {file.stat().st_size} bytes, {MANIFEST} says {expected['size_bytes']}.")
        if _sha256(file) != expected["sha256"]:
            raise HandOverError(f"{file} is not what was written: its sha256 differs from {MANIFEST}.")


def _copy_small_files(source: Path, target: Path) -> None:
    """Everything beside the weights that loading needs. The weight index still holds: names and sizes are the same."""
    suffixes = (*COPIED, ".py") if "auto_map" in read_config(source) else COPIED
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name.endswith(suffixes) and file.name != MANIFEST:
            shutil.copyfile(file, target / file.name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", target / "additional_chat_templates")


def _refuse_tied(base_dir: Path, updates: Mapping[str, Update]) -> None:
    """Raise HandOverError where an update is of a matrix that the model uses as embedding and as output at once.

    PEFT changes one of the two uses; a merged file with one matrix could only change both.
    """
    vocab_size = read_config(base_dir).get("vocab_size")
    of_vocabulary = [
        update.module
        for parameter, update in updates.items()
        if vocab_size in update.shape and len(update.shape) == 2 and not LAYER.search(parameter)
    ]
    if of_vocabulary and _is_tied(base_dir):
        raise HandOverError(
            f"The adapter changes {of_vocabulary[0]}, and the base uses one matrix as embedding and as output "
            "(tie_word_embeddings): merged, both uses would change. Use the adapter unmerged, or untie the base and "
            "train anew."
        )


def _is_tied(base_dir: Path) -> bool:
    """What config.json says, or where it is silent the default of its architecture; where nobody knows, yes."""
    said = read_config(base_dir).get("tie_word_embeddings")
    if said is not None:
        return bool(said)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base_dir, local_files_only=True)
    except ValueError:  # an architecture that lies beside the model
        return True
    return bool(getattr(config, "tie_word_embeddings", True))


def adapter_digest(adapter_dir: Path) -> str:
    """16 hexadecimal digits over an adapter's two files, by which a merge says what was merged."""
    digest = hashlib.sha256()
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        with (adapter_dir / name).open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()[:16]


def _write_manifest(directory: Path, base_dir: Path, adapter_dir: Path, written: Mapping[str, WrittenFile]) -> None:
    """written: files whose digest is known already. The others are small; they are brought to disk here."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_dir() or name not in written:
            _sync(path)
        if path.is_file():
            files[name] = asdict(written.get(name) or _fingerprint(path))
    manifest = {
        "base_digest": directory_digest(base_dir),
        "adapter_digest": adapter_digest(adapter_dir),
        "files": files,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    _sync(directory / MANIFEST)


def _fingerprint(file: Path) -> WrittenFile:
    return WrittenFile(size_bytes=file.stat().st_size, sha256=_sha256(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
