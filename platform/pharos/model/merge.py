"""Merging an adapter into the original base, tensor by tensor from file to file, and the manifest of what came out.

W + scaling * B @ A is computed in fp32 and cast once, to the dtype that W is stored in. Nothing here loads a model:
beyond the adapter, memory holds one tensor at a time, so an 8B model merges on a laptop. Tensors without an adapter are
copied byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import torch

from pharos.errors import HandOverError
from pharos.model.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterTensors, read_adapter
from pharos.model.base_files import StoredTensor, read_config, stored_tensors, weight_files
from pharos.model.facts import directory_digest

MANIFEST = "pharos_manifest.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
COPIED = (".json", ".jinja", ".txt", ".model")  # config, index, generation config, tokenizer, chat template
CHUNK_BYTES = 1 << 24


def merge_adapter(
    base_dir: Path,
    adapter_dir: Path,
    output_dir: Path,
    *,
    chat_template: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write base + adapter as a plain model directory with a manifest.

    It is written beside `output_dir` and renamed when whole; an earlier merge there is replaced.

    Args:
        chat_template: the Jinja text that the adapter was trained with, where it is not the base's own.
        progress: told (bytes written, bytes in all) after each tensor.

    Raises HandOverError if a module of the adapter does not match exactly one weight in name and shape, if the base is
    stored in a dtype that cannot be merged into, or if `output_dir` holds something else.
    """
    if output_dir.exists() and not (output_dir / MANIFEST).is_file():
        raise HandOverError(f"{output_dir} is already there and no merged model: it is not overwritten. Move it away.")
    adapter = read_adapter(adapter_dir)
    tensors = stored_tensors(base_dir)
    module_of = match_modules(adapter, tensors)

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

        for file in weight_files(base_dir):
            held = [tensor for tensor in tensors.values() if tensor.file == file]
            _write_shard(file, unfinished / file.name, held, adapter, module_of, wrote)
        _copy_small_files(base_dir, unfinished)
        if chat_template is not None:
            (unfinished / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
        _write_manifest(unfinished, base_dir, adapter_dir)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        unfinished.rename(output_dir)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def match_modules(adapter: AdapterTensors, tensors: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Weight name -> name of the adapter's module that changes it.

    A weight may lack leading parts of the module's name: a checkpoint of the bare decoder has no `model.` in front.
    Raises HandOverError for a module without exactly one weight of its shape.
    """
    module_of: dict[str, str] = {}
    for module, (a, b) in adapter.tensors.items():
        parts = f"{module}.weight".split(".")
        names = [name for start in range(len(parts) - 1) if (name := ".".join(parts[start:])) in tensors]
        if len(names) != 1:
            found = f"{len(names)} weights: {', '.join(names)}" if names else "no weight"
            raise HandOverError(f"The adapter's module {module} matches {found} of the base. Is it of another base?")
        weight, expected = tensors[names[0]], (b.shape[0], a.shape[1])
        if weight.shape != expected:
            raise HandOverError(
                f"The adapter's module {module} is for a weight of shape {expected}, the base's has {weight.shape}. "
                "Is it of another base?"
            )
        if weight.dtype not in DTYPES:
            raise HandOverError(
                f"{weight.name} is stored as {weight.dtype}, into which an adapter cannot be merged. It must be one of "
                f"{', '.join(DTYPES)}."
            )
        if names[0] in module_of:
            raise HandOverError(
                f"The adapter's modules {module_of[names[0]]} and {module} match one weight: {names[0]}."
            )
        module_of[names[0]] = module
    return module_of


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


def _write_shard(
    source: Path,
    target: Path,
    tensors: list[StoredTensor],
    adapter: AdapterTensors,
    module_of: Mapping[str, str],
    wrote: Callable[[int], None],
) -> None:
    """Write `target` as `source` with merged tensors: names, shapes, dtypes and order of bytes stay the same."""
    data_start = tensors[0].begin if tensors else 0
    header = {
        tensor.name: {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.begin - data_start, tensor.end - data_start],
        }
        for tensor in tensors
    }
    encoded = json.dumps({"__metadata__": {"format": "pt"}} | header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # safetensors aligns the data to 8 bytes
    with source.open("rb") as stream, target.open("wb") as output:
        output.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors:
            stream.seek(tensor.begin)
            if tensor.name in module_of:
                output.write(_merged_bytes(stream, tensor, adapter, module_of[tensor.name]))
            else:
                _copy_bytes(stream, output, tensor.end - tensor.begin)
            wrote(tensor.end - tensor.begin)


def _merged_bytes(stream: BufferedReader, tensor: StoredTensor, adapter: AdapterTensors, module: str) -> memoryview:
    """The bytes of W + scaling * B @ A in W's dtype; a W of 64 bits is merged in 64 bits."""
    dtype = DTYPES[tensor.dtype]
    raw = bytearray(tensor.end - tensor.begin)
    if stream.readinto(raw) != len(raw):
        raise HandOverError(f"{stream.name} became shorter while it was read.")
    weight = torch.frombuffer(raw, dtype=dtype).view(tensor.shape)
    compute = torch.promote_types(dtype, torch.float32)
    a, b = (matrix.to(compute) for matrix in adapter.tensors[module])
    weight.copy_(weight.to(compute, copy=True).addmm_(b, a, alpha=adapter.scaling))
    if not torch.stack(torch.aminmax(weight)).isfinite().all():  # after the cast: float16 ends at 65504
        raise HandOverError(f"The adapter makes {tensor.name} hold values that are not finite in {tensor.dtype}.")
    return memoryview(raw)


def _copy_bytes(stream: BinaryIO, output: BinaryIO, num_bytes: int) -> None:
    while num_bytes:
        chunk = stream.read(min(CHUNK_BYTES, num_bytes))
        if not chunk:
            raise HandOverError(f"{stream.name} became shorter while it was read.")
        output.write(chunk)
        num_bytes -= len(chunk)


def _copy_small_files(source: Path, target: Path) -> None:
    """Everything beside the weights that loading needs. The weight index still holds: names and sizes are the same."""
    suffixes = (*COPIED, ".py") if "auto_map" in read_config(source) else COPIED
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name.endswith(suffixes) and file.name != MANIFEST:
            shutil.copyfile(file, target / file.name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", target / "additional_chat_templates")


def _write_manifest(directory: Path, base_dir: Path, adapter_dir: Path) -> None:
    adapter = hashlib.sha256()
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        adapter.update((adapter_dir / name).read_bytes())
    files = {
        path.relative_to(directory).as_posix(): {"size_bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    manifest = {"base_digest": directory_digest(base_dir), "adapter_digest": adapter.hexdigest()[:16], "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
