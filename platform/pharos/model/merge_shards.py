"""Writing one shard of a merged model: block by block from file to file, hashed on the way, on disk when it is said so.

Memory holds a few blocks, whatever the size of a tensor or a file. One thread reads and computes; another hashes and
writes what is ready, so that the disk need not wait for the arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch

from pharos.errors import HandOverError
from pharos.model.adapter_updates import Update
from pharos.model.base_files import StoredTensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
BLOCK_BYTES = 1 << 22
"""Of the stored dtype; while it is merged, a block takes three times that in fp32."""
BLOCKS_AHEAD = 16
"""May be ready before the disk has taken them: while it syncs, the arithmetic goes on."""
SYNC_BYTES = 1 << 27
"""Written to disk at least so often: then the last fsync has little left, and a server's memory is not full of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """What a manifest says of a file."""

    size_bytes: int
    sha256: str


def write_shard(
    source: Path,
    target: Path,
    tensors: Sequence[StoredTensor],
    updates: Mapping[str, Update],
    wrote: Callable[[int], None],
) -> WrittenFile:
    """Write `target` as `source` with merged tensors: names, shapes, dtypes and order of bytes stay the same.

    Args:
        tensors: those of `source`, in the order of their bytes.
        updates: tensor name -> what becomes of it.
        wrote: told the bytes of each block, once it is written.

    Raises HandOverError where a merged value is not finite in the dtype that it is stored in.
    """
    with source.open("rb") as stream, target.open("wb") as output, ThreadPoolExecutor(max_workers=1) as thread:
        writer, buffers = _Writer(output), _Buffers()
        writer.write(memoryview(_header(tensors)))
        pending: deque[tuple[Future[None], memoryview]] = deque()

        def let_go(ahead: int) -> None:
            while len(pending) > ahead:
                future, block = pending.popleft()
                future.result()
                wrote(len(block))
                buffers.give(block)

        for tensor in tensors:
            stream.seek(tensor.begin)
            for block in _blocks(stream, tensor, updates.get(tensor.name), buffers):
                pending.append((thread.submit(writer.write, block), block))
                let_go(BLOCKS_AHEAD)
        let_go(0)
        return writer.finish()


class _Buffers:
    """Memory of blocks, used again and again: fresh pages would cost more than the arithmetic on them."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self, num_bytes: int) -> memoryview:
        fits = self._free and len(self._free[-1]) >= num_bytes
        return memoryview(self._free.pop() if fits else bytearray(max(num_bytes, BLOCK_BYTES)))[:num_bytes]

    def give(self, block: memoryview) -> None:
        assert isinstance(block.obj, bytearray)
        self._free.append(block.obj)


class _Writer:
    """An open file that counts, hashes and syncs what is written into it."""

    def __init__(self, output: BinaryIO) -> None:
        self._output, self._digest = output, hashlib.sha256()
        self._size_bytes, self._unsynced_bytes = 0, 0

    def write(self, block: memoryview) -> None:
        self._output.write(block)
        self._digest.update(block)
        self._size_bytes += len(block)
        self._unsynced_bytes += len(block)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._sync()

    def finish(self) -> WrittenFile:
        self._sync()
        return WrittenFile(size_bytes=self._size_bytes, sha256=self._digest.hexdigest())

    def _sync(self) -> None:
        self._output.flush()
        os.fsync(self._output.fileno())
        self._unsynced_bytes = 0


def _header(tensors: Sequence[StoredTensor]) -> bytes:
    start = tensors[0].begin if tensors else 0
    header = {
        tensor.name: {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.begin - start, tensor.end - start],
        }
        for tensor in tensors
    }
    encoded = json.dumps({"__metadata__": {"format": "pt"}} | header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # safetensors aligns the data to 8 bytes
    return len(encoded).to_bytes(8, "little") + encoded


def _blocks(
    stream: BufferedReader, tensor: StoredTensor, update: Update | None, buffers: _Buffers
) -> Iterator[memoryview]:
    """The bytes of a tensor as they are to be written. `stream` stands at its first byte."""
    num_bytes = tensor.end - tensor.begin
    if update is None:
        for start in range(0, num_bytes, BLOCK_BYTES):
            yield _read(stream, buffers.take(min(BLOCK_BYTES, num_bytes - start)))
        return
    num_rows = tensor.shape[0] if tensor.shape else 1
    row_bytes = num_bytes // max(1, num_rows)
    rows_per_block = max(1, BLOCK_BYTES // max(1, row_bytes))
    dtype = DTYPES[tensor.dtype]
    compute = torch.promote_types(dtype, torch.float32)  # a W of 64 bits is merged in 64 bits
    factors = update.factors()
    if factors is not None:
        factors = factors[0].to(compute), factors[1].to(compute)
    for first in range(0, num_rows, rows_per_block):
        rows = slice(first, min(first + rows_per_block, num_rows))
        raw = _read(stream, buffers.take((rows.stop - first) * row_bytes))
        block = torch.frombuffer(raw, dtype=dtype).view(rows.stop - first, prod(tensor.shape[1:]))
        block.copy_(_merged(block, rows, update, factors, compute))
        if not torch.stack(torch.aminmax(block)).isfinite().all():  # after the cast: float16 ends at 65504
            raise HandOverError(f"The adapter makes {tensor.name} hold values that are not finite in {tensor.dtype}.")
        yield raw


def _merged(
    stored: torch.Tensor,
    rows: slice,
    update: Update,
    factors: tuple[torch.Tensor, torch.Tensor] | None,
    compute: torch.dtype,
) -> torch.Tensor:
    """A block of rows of W after the update, in `compute`."""
    given = stored if update.whole is None else update.whole[rows].reshape(stored.shape)
    merged = given.to(compute, copy=True)
    if factors is not None:
        left, right = factors
        merged.addmm_(left[rows], right, alpha=update.scaling)
    if update.magnitude is not None:  # DoRA, Liu et al. 2024: each row is brought to its learned length
        lengths = torch.linalg.vector_norm(merged, dim=1)
        merged *= (update.magnitude[rows].to(compute) / lengths)[:, None]
    return merged


def _read(stream: BufferedReader, block: memoryview) -> memoryview:
    if stream.readinto(block) != len(block):
        raise HandOverError(f"{stream.name} became shorter while it was read.")
    return block
