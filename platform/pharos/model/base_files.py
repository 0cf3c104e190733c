"""What the files of a base model say of themselves: config.json, the weight index, the headers of the shards.

Reads JSON and the first bytes of safetensors files, never weights, so that a plan needs neither torch nor memory. The
layout of a safetensors file: 8 bytes length of the header (little endian), the header as JSON, the tensors' bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pharos.errors import BaseModelError

WEIGHTS, WEIGHT_INDEX = "model.safetensors", "model.safetensors.index.json"  # as transformers names and prefers them


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor in a file. begin, end: bytes from the start of the file; dtype: as safetensors names it, like BF16."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_config(directory: Path) -> dict[str, Any]:
    """`config.json` of a model directory. Raises BaseModelError if it is not there or not a JSON object."""
    return read_json_object(directory / "config.json")


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights, sorted by name; none if there is neither a single file nor an index.

    Raises BaseModelError if the index cannot be read or names a file that is not there.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / WEIGHT_INDEX).is_file():
        return []
    files = [directory / name for name in sorted(set(_weight_map(directory).values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BaseModelError(
            f"{directory / WEIGHT_INDEX} names {len(missing)} of {len(files)} weight files that are not there: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. Copy or download the model again."
        )
    return files


def has_whole_weights(directory: Path) -> bool:
    """Whether there are weights, and every file that their index names: a hub's cache may hold half a download."""
    try:
        return bool(weight_files(directory))
    except BaseModelError:
        return False


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model directory by name, file by file in the order of their bytes.

    Raises BaseModelError if a file is truncated or no safetensors file, or if the index and the files disagree.
    """
    tensors = {tensor.name: tensor for file in weight_files(directory) for tensor in read_header(file)}
    if not (directory / WEIGHTS).is_file() and tensors:
        for name, file in _weight_map(directory).items():
            if name not in tensors or tensors[name].file.name != file:
                raise BaseModelError(
                    f"{directory / WEIGHT_INDEX} says that {file} holds {name}, which it does not. "
                    "Copy or download the model again."
                )
    return tensors


def read_header(file: Path) -> list[StoredTensor]:
    """The tensors of one safetensors file in the order of their bytes. Raises BaseModelError if it is not whole."""
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if size_bytes < 8 or header_bytes > size_bytes - 8:
            raise BaseModelError(
                f"{file} is truncated or no safetensors file: its header should be {header_bytes} bytes long, the "
                f"whole file has {size_bytes}. Copy or download it again."
            )
        start = 8 + header_bytes
        try:
            header = json.loads(stream.read(header_bytes))
            header.pop("__metadata__", None)
            tensors = [
                StoredTensor(
                    name=name,
                    file=file,
                    dtype=entry["dtype"],
                    shape=tuple(entry["shape"]),
                    begin=start + entry["data_offsets"][0],
                    end=start + entry["data_offsets"][1],
                )
                for name, entry in header.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise BaseModelError(
                f"{file} is no safetensors file: its header cannot be read ({error}). Copy or download it again."
            ) from error
    promised_bytes = max((tensor.end for tensor in tensors), default=start)
    if promised_bytes != size_bytes:
        raise BaseModelError(
            f"{file} is truncated or damaged: its header promises {promised_bytes} bytes, it has {size_bytes}. "
            "Copy or download it again."
        )
    return sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end))


def read_json_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises BaseModelError if it is not there or holds anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BaseModelError(f"{file.parent} is no model directory: it has no {file.name}.") from error
    except ValueError as error:  # malformed JSON, or bytes that are no UTF-8
        raise BaseModelError(f"{file} is not JSON: {error}. Copy or download the model again.") from error
    if not isinstance(content, dict):
        raise BaseModelError(f"{file} holds no JSON object. Copy or download the model again.")
    return content


def _weight_map(directory: Path) -> dict[str, str]:
    """Tensor name -> file name, as the index says it."""
    index = directory / WEIGHT_INDEX
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BaseModelError(f"{index} has no weight_map. Copy or download the model again.")
    for file in weight_map.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise BaseModelError(f"{index} names {file!r}, which is no safetensors file beside it. Only those work.")
    return weight_map
