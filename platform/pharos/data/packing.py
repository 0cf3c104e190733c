"""Zero padding: several rows end to end in one sequence, so that no position of a batch is left to pads.

Which rows share a pack is decided here, by lengths alone; that they do not see each other is the model's business,
which is told each token's position in its own row. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_TRIES = 24
"""Rows that are tried as the first of three which fill a pack to its last token."""


def pack(lengths: Sequence[int] | np.ndarray, max_length: int) -> list[np.ndarray]:
    """Which rows share a pack: for each pack the indices of its rows, at most `max_length` tokens together.

    Packed in two ways, of which the one with fewer packs is taken; where rows are short beside a pack, that is the
    second. The same lengths give the same packs, in time that grows with the number of rows.

    Raises ValueError if a row is empty or longer than `max_length`.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.size and not 1 <= lengths.min() <= lengths.max() <= max_length:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} do not fit packs of {max_length} tokens")
    packs = min(best_fit_decreasing(lengths, max_length), filled_exactly(lengths, max_length), key=len)
    return [np.array(rows, dtype=np.int64) for rows in packs]


def best_fit_decreasing(lengths: np.ndarray, max_length: int) -> list[list[int]]:
    """The longest row first, each into the fullest pack that still holds it.

    Johnson et al. (1974): never more than 11/9 of the fewest packs, plus 4. Packs with equal room are found through one
    bit a room, so the work does not grow with the number of open packs.
    """
    packs: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(max_length + 1)]  # packs by the tokens that they still hold
    rooms = 0  # bit r is set where with_room[r] is not empty
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        roomy = rooms >> length
        if roomy:
            room = length + (roomy & -roomy).bit_length() - 1
            chosen = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, chosen = max_length, len(packs)
            packs.append([])
        packs[chosen].append(index)
        left = room - length
        if left:
            with_room[left].append(chosen)
            rooms |= 1 << left
    return packs


def filled_exactly(lengths: np.ndarray, max_length: int) -> list[list[int]]:
    """Pack after pack: the longest row that is left, then one, two or three more that fill the rest to the last token.

    Where none do, the longest that fits goes in and the search goes on for what is then left. After Gupta and Ho's
    minimum bin slack (1999), with only so many tries a pack.
    """
    shelf = _Shelf(lengths, max_length)
    packs: list[list[int]] = []
    while shelf.lengths:
        packs.append([])
        room = max_length
        wanted: tuple[int, ...] = (shelf.longest(room),)
        while wanted:
            packs[-1] += [shelf.take(length) for length in wanted]
            room -= sum(wanted)
            longest = shelf.longest(room)
            wanted = shelf.filling(room) or ((longest,) if longest else ())
    return packs


class _Shelf:
    """Rows by length, with the lengths that are there as bits of a number, and once more in the opposite order."""

    def __init__(self, lengths: np.ndarray, max_length: int) -> None:
        self._max_length = max_length
        self._rows: list[list[int]] = [[] for _ in range(max_length + 1)]
        for index in reversed(range(len(lengths))):
            self._rows[int(lengths[index])].append(index)
        present = [length for length, rows in enumerate(self._rows) if rows]
        self.lengths = sum(1 << length for length in present)
        self._mirrored = sum(1 << (max_length - length) for length in present)

    def take(self, length: int) -> int:
        """The first row of this length."""
        index = self._rows[length].pop()
        if not self._rows[length]:
            self.lengths ^= 1 << length
            self._mirrored ^= 1 << (self._max_length - length)
        return index

    def longest(self, room: int) -> int:
        """The largest length that fits, 0 where none does."""
        return max(0, (self.lengths & ((1 << (room + 1)) - 1)).bit_length() - 1)

    def filling(self, room: int) -> tuple[int, ...]:
        """Lengths of one, two or three rows that sum to `room`, with as long a one as possible; empty where none do."""
        if room == 0 or self.lengths >> room & 1:
            return (room,) if room else ()
        if pair := self._pair(room):
            return pair
        candidates = self.lengths & ((1 << room) - 1)
        for _ in range(MAX_TRIES):
            if not candidates:
                break
            first = candidates.bit_length() - 1
            candidates ^= 1 << first
            others = self._pair(room - first)
            if others and (first, *others).count(first) <= len(self._rows[first]):
                return (first, *others)
        return ()

    def _pair(self, room: int) -> tuple[int, ...]:
        """Lengths of two rows that sum to `room`: in the mirrored bits shifted so, a length lies at its counterpart."""
        both = self.lengths & (self._mirrored >> (self._max_length - room)) & ((1 << room) - 1)
        while both:
            longer = both.bit_length() - 1
            if 2 * longer != room or len(self._rows[longer]) > 1:
                return longer, room - longer
            both ^= 1 << longer
        return ()


def positions(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """The position of each token in its own row, int32, for rows of these lengths end to end: 0 1 2 0 1 0 ..."""
    lengths = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    return (np.arange(lengths.sum()) - np.repeat(starts, lengths)).astype(np.int32)
