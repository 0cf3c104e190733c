"""Zero padding: several rows end to end in one sequence, so that no position of a batch is left to pads.

Which rows share a pack is decided here, by lengths alone; that they do not see each other is the model's business,
which is told each token's position in its own row. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int] | np.ndarray, max_length: int) -> list[np.ndarray]:
    """Which rows share a pack: for each pack the indices of its rows, at most `max_length` tokens together.

    Best-fit decreasing (Johnson et al., 1974: never more than 11/9 of the fewest packs, plus 4): the longest row first,
    each into the fullest pack that still holds it. Packs with equal room are found through one bit a room, so the
    work grows with the number of rows and not with that of open packs. The same lengths give the same packs.

    Raises ValueError if a row is empty or longer than `max_length`.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.size and not 1 <= lengths.min() <= lengths.max() <= max_length:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} do not fit packs of {max_length} tokens")
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
    return [np.array(rows, dtype=np.int64) for rows in packs]


def positions(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """The position of each token in its own row, int32, for rows of these lengths end to end: 0 1 2 0 1 0 ..."""
    lengths = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    return (np.arange(lengths.sum()) - np.repeat(starts, lengths)).astype(np.int32)
