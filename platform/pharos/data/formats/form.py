"""What a form of rows is: the keys that it is known by, and how a row of it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pharos.data.formats.cells import Cells
from pharos.data.formats.rows import Origin, Row, Turn

TurnsReader = Callable[[Cells], list[Turn]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A form of rows. A row has it if all `keys` stand in it and `fits`; `read` collects what is wrong in the cells.

    kind: what its rows become. optional_keys: read where they stand. turn_keys: those of both that may hold turns.
    other_keys: what another tool calls a key, for data.columns. columns: the file's own names of keys.
    needed_by: why a row must have the keys, for messages. read_columns: all columns that are read.
    """

    name: str
    kind: type[Row]
    keys: tuple[str, ...]
    read: Callable[[Cells, Origin], Row | None]
    optional_keys: tuple[str, ...] = ()
    turn_keys: tuple[str, ...] = ()
    other_keys: Mapping[str, str] = field(default_factory=dict)
    fits: Callable[[Cells], bool] = lambda cells: True
    columns: Mapping[str, str] = field(default_factory=dict)
    needed_by: str = ""
    read_columns: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        keys = (*self.keys, *self.optional_keys)
        object.__setattr__(self, "read_columns", frozenset(self.columns.get(key, key) for key in keys))

    def has_keys(self, cells: Cells) -> bool:
        return all(cells.column(key) in cells.row for key in self.keys) and self.fits(cells)
