"""Prepared rows on disk: one Arrow IPC file a split, one record batch each, so that a row is a slice of a memory map.

Rows are spilled to raw files while they come and laid out once all are there; neither way holds them in memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pharos.data.packing import positions
from pharos.plan.exchange import Split

COPY_BYTES = 1 << 22
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRows:
    """Rows of one split, mapped from disk. lengths, trained_counts: tokens of each row, int64 (N,).

    Where training rows are packed, a row here is a pack, and `positions` tells its rows apart.
    """

    tokens: np.ndarray  # int32, all rows end to end
    trained: np.ndarray  # uint8, 0 or 1, beside tokens
    offsets: np.ndarray  # int64 (N + 1,): row i is tokens[offsets[i]:offsets[i + 1]]
    lengths: np.ndarray
    trained_counts: np.ndarray
    positions: np.ndarray | None = None  # int32, beside tokens: the place of each in its own row

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (T,) int32 and trained (T,) bool of a row, as views of the file."""
        place = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[place], self.trained[place].view(bool)


class RowSpill:
    """Rows of one split in raw files of a folder, written one after another."""

    def __init__(self, folder: Path, split: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tokens_file, self.trained_file = folder / f"{split}.tokens", folder / f"{split}.trained"
        self._streams = (self.tokens_file.open("wb"), self.trained_file.open("wb"))

    def add(self, tokens: np.ndarray, trained: np.ndarray) -> None:
        """Some rows end to end: tokens int32, trained uint8."""
        for stream, array in zip(self._streams, (tokens, trained), strict=True):
            stream.write(array.data)

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def write_rows(file: Path, spill: RowSpill, lengths: np.ndarray, num_trained: np.ndarray) -> None:
    """The rows of a closed spill as an Arrow file, in their order. lengths, num_trained: of each row."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    columns = {"tokens": spill.tokens_file, "trained": spill.trained_file}
    _write_arrow(file, offsets, columns, num_trained.astype(np.int64))


def write_ordered_rows(
    file: Path, spill: RowSpill, lengths: np.ndarray, groups: Sequence[np.ndarray] | np.ndarray, *, is_packed: bool
) -> None:
    """Rows in an order of choice, each group of rows as one. is_packed: with the positions of tokens in their rows.

    Where rows are packed, the first token of each of them is not trained on: nothing predicts it.
    """
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    ordered = RowSpill(spill.tokens_file.parent / "ordered", "train")
    positions_file = ordered.tokens_file.with_suffix(".positions")
    group_lengths: list[np.ndarray] = []
    group_trained: list[np.ndarray] = []
    with (
        spill.tokens_file.open("rb") as tokens,
        spill.trained_file.open("rb") as trained,
        positions_file.open("wb") as p,
    ):
        for first in range(0, len(groups), ROWS_AT_ONCE):
            block = groups[first : first + ROWS_AT_ONCE]
            rows = np.concatenate([np.atleast_1d(group) for group in block])
            sizes = [np.size(group) for group in block]
            token_values = _gather(tokens, starts, rows, np.dtype(np.int32))
            trained_values = _gather(trained, starts, rows, np.dtype(np.uint8))
            if is_packed:
                places = positions(lengths[rows])
                trained_values[places == 0] = 0
                p.write(places.data)
            ordered.add(token_values, trained_values)
            row_lengths = lengths[rows].astype(np.int64)
            group_lengths.append(np.add.reduceat(row_lengths, np.cumsum([0, *sizes[:-1]])))
            begins = np.cumsum(group_lengths[-1]) - group_lengths[-1]
            group_trained.append(np.add.reduceat(trained_values, begins, dtype=np.int64))
    ordered.close()
    columns = {"tokens": ordered.tokens_file, "trained": ordered.trained_file}
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(group_lengths))])
    _write_arrow(
        file, offsets, columns | ({"positions": positions_file} if is_packed else {}), np.concatenate(group_trained)
    )


def open_rows(file: Path) -> TokenRows:
    """The rows of an Arrow file that `write_rows` wrote, read from disk only where they are touched."""
    import pyarrow

    batch = pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).get_batch(0)

    def values(name: str, dtype: type) -> np.ndarray:
        return np.frombuffer(batch.column(name).buffers()[-1], dtype=dtype)

    offsets = np.array(np.frombuffer(batch.column("tokens").buffers()[1], dtype=np.int64))
    return TokenRows(
        tokens=values("tokens", np.int32),
        trained=values("trained", np.uint8),
        offsets=offsets,
        lengths=np.diff(offsets),
        trained_counts=np.array(values("num_trained", np.int64)),
        positions=values("positions", np.int32) if "positions" in batch.schema.names else None,
    )


class PromptFile:
    """The prompts of test rows and their reference answers, written a few at a time."""

    def __init__(self, file: Path) -> None:
        import pyarrow

        self._schema = pyarrow.schema({"prompt": pyarrow.list_(pyarrow.int32()), "reference": pyarrow.string()})
        self._writer = pyarrow.ipc.new_file(str(file), self._schema)

    def add(self, prompts: Iterable[np.ndarray], references: Sequence[str]) -> None:
        import pyarrow

        if references:
            columns = {"prompt": [tokens.tolist() for tokens in prompts], "reference": list(references)}
            self._writer.write_batch(pyarrow.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def open_split(directory: Path, split: Split) -> TokenRows:
    """The rows of a split of a prepared directory."""
    return open_rows(directory / f"{split}.arrow")


def open_prompts(directory: Path) -> tuple[list[np.ndarray], list[str]]:
    """What to generate from for each test row, token ids (P,) int32, and the reference answers."""
    import pyarrow

    with pyarrow.ipc.open_file(pyarrow.memory_map(str(directory / "test_prompts.arrow"))) as stream:
        batches = [stream.get_batch(index) for index in range(stream.num_record_batches)]
    prompts = [np.array(row.as_py(), dtype=np.int32) for batch in batches for row in batch.column("prompt")]
    return prompts, [text for batch in batches for text in batch.column("reference").to_pylist()]


def _gather(stream: BinaryIO, starts: np.ndarray, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Some rows of a raw file, end to end, read one by one: a memory map would stay in memory page by page."""
    size, file = dtype.itemsize, stream.fileno()
    begins, ends = (starts[rows] * size).tolist(), (starts[rows + 1] * size).tolist()
    blocks = [os.pread(file, end - begin, begin) for begin, end in zip(begins, ends, strict=True)]
    return np.frombuffer(bytearray(b"".join(blocks)), dtype=dtype)


def _write_arrow(file: Path, offsets: np.ndarray, columns: dict[str, Path], num_trained: np.ndarray) -> None:
    """One record batch of lists over the values of raw files, mapped, so that they never fill memory."""
    import pyarrow

    kinds = {"tokens": pyarrow.int32(), "trained": pyarrow.uint8(), "positions": pyarrow.int32()}
    maps: list[mmap.mmap] = []
    fields, arrays = [], []
    for name, path in columns.items():
        with path.open("rb") as stream:
            maps.append(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        item = pyarrow.field("item", kinds[name], nullable=False)
        values = pyarrow.Array.from_buffers(kinds[name], int(offsets[-1]), [None, pyarrow.py_buffer(maps[-1])])
        kind = pyarrow.large_list(item)
        lists = pyarrow.Array.from_buffers(
            kind, len(offsets) - 1, [None, pyarrow.py_buffer(offsets)], null_count=0, children=[values]
        )
        fields.append(pyarrow.field(name, kind, nullable=False))
        arrays.append(lists)
    fields.append(pyarrow.field("num_trained", pyarrow.int64(), nullable=False))
    batch = pyarrow.record_batch([*arrays, pyarrow.array(num_trained)], schema=pyarrow.schema(fields))
    with file.open("wb") as stream:
        sink = pyarrow.PythonFile(_Sink(stream, maps), mode="w")
        with pyarrow.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)


class _Sink:
    """A file that gives pages of memory maps back once they are copied, so that they never fill the memory."""

    closed = False

    def __init__(self, stream: Any, maps: Sequence[mmap.mmap]) -> None:
        self._stream, self._maps = stream, maps

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), COPY_BYTES):
            self._stream.write(view[start : start + COPY_BYTES])
            if len(view) > COPY_BYTES and hasattr(mmap, "MADV_DONTNEED"):
                for mapped in self._maps:
                    mapped.madvise(mmap.MADV_DONTNEED)
        return len(view)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()
