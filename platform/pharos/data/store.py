"""Prepared rows on disk: one Arrow IPC file a split, one record batch each, so that a row is a slice of a memory map.

Rows are spilled to raw files while they come and laid out once all are there; neither way holds them in memory.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pharos.data.packing import positions
from pharos.plan.exchange import HeldOut, Split

COPY_BYTES = 1 << 22
ROWS_AT_ONCE = 4096
COLUMN_DTYPES = {"tokens": np.int32, "trained": np.uint8, "positions": np.int32, "targets": np.int32}


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
    targets: np.ndarray | None = None  # int32, beside tokens: what is to be predicted there, where it is not the token

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (T,) int32 and trained (T,) bool of a row, as views of the file."""
        place = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[place], self.trained[place].view(bool)


class RowSpill:
    """Rows of one split in raw files of a folder, one file a column, written one after another."""

    def __init__(self, folder: Path, split: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._split = folder, split
        self._streams = {name: self._file(name).open("wb") for name in ("tokens", "trained")}

    @property
    def files(self) -> dict[str, Path]:
        """The file of each column, all of the same number of values."""
        return {name: self._file(name) for name in self._streams}

    def add(self, *, tokens: np.ndarray, **columns: np.ndarray | None) -> None:
        """Some rows end to end: tokens int32, trained uint8; positions and targets int32 where rows have them.

        Targets may begin at any row: they are the tokens themselves before that, and wherever they are none after it.
        """
        if columns.get("targets") is not None and "targets" not in self._streams:
            self._streams["tokens"].flush()
            shutil.copyfile(self._file("tokens"), self._file("targets"))
            self._streams["targets"] = self._file("targets").open("ab")
        if columns.get("positions") is not None and "positions" not in self._streams:
            self._streams["positions"] = self._file("positions").open("wb")
        values = {"tokens": tokens, **columns}
        for name, stream in self._streams.items():
            array = values.get(name)
            stream.write((tokens if array is None else array).data)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def _file(self, name: str) -> Path:
        return self.folder / f"{self._split}.{name}"


def write_rows(file: Path, spill: RowSpill, lengths: np.ndarray, num_trained: np.ndarray) -> None:
    """The rows of a closed spill as an Arrow file, in their order. lengths, num_trained: of each row."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    _write_arrow(file, offsets, spill.files, num_trained.astype(np.int64))


def write_ordered_rows(
    file: Path, spill: RowSpill, lengths: np.ndarray, groups: Sequence[np.ndarray] | np.ndarray, *, is_packed: bool
) -> None:
    """Rows in an order of choice, each group of rows as one. is_packed: with the positions of tokens in their rows.

    Where rows are packed, the first token of each of them is not trained on: nothing predicts it.
    """
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    ordered = RowSpill(spill.folder / "ordered", "train")
    group_lengths: list[np.ndarray] = []
    group_trained: list[np.ndarray] = []
    with ExitStack() as stack:
        columns = {name: stack.enter_context(path.open("rb")) for name, path in spill.files.items()}
        for first in range(0, len(groups), ROWS_AT_ONCE):
            block = groups[first : first + ROWS_AT_ONCE]
            rows = np.concatenate([np.atleast_1d(group) for group in block])
            sizes = [np.size(group) for group in block]
            values: dict[str, np.ndarray] = {
                name: _gather(stream, starts, rows, np.dtype(COLUMN_DTYPES[name])) for name, stream in columns.items()
            }
            if is_packed:
                values["positions"] = positions(lengths[rows])
                values["trained"][values["positions"] == 0] = 0
            ordered.add(**values)
            row_lengths = lengths[rows].astype(np.int64)
            group_lengths.append(np.add.reduceat(row_lengths, np.cumsum([0, *sizes[:-1]])))
            begins = np.cumsum(group_lengths[-1]) - group_lengths[-1]
            group_trained.append(np.add.reduceat(values["trained"], begins, dtype=np.int64))
    ordered.close()
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(group_lengths))])
    _write_arrow(file, offsets, ordered.files, np.concatenate(group_trained))


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
        targets=values("targets", np.int32) if "targets" in batch.schema.names else None,
        offsets=offsets,
        lengths=np.diff(offsets),
        trained_counts=np.array(values("num_trained", np.int64)),
        positions=values("positions", np.int32) if "positions" in batch.schema.names else None,
    )


class PromptFile:
    """The prompts of a split's rows and their reference answers, written a few at a time."""

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


def open_prompts(directory: Path, split: HeldOut = "test") -> tuple[list[np.ndarray], list[str]]:
    """What to generate from for each row of a split, token ids (P,) int32, and the reference answers."""
    import pyarrow

    with pyarrow.ipc.open_file(pyarrow.memory_map(str(directory / f"{split}_prompts.arrow"))) as stream:
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

    maps: list[mmap.mmap] = []
    fields, arrays = [], []
    for name, path in columns.items():
        with path.open("rb") as stream:
            maps.append(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        value = pyarrow.from_numpy_dtype(COLUMN_DTYPES[name])
        item = pyarrow.field("item", value, nullable=False)
        values = pyarrow.Array.from_buffers(value, int(offsets[-1]), [None, pyarrow.py_buffer(maps[-1])])
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
