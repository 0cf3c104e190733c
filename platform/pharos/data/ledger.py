"""What is known of the rows of one split while they stream by: counts, lengths, what was long or left out.

Tokens do not stay here; a few bytes a row do, from which facts, packs and mixtures are made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pharos.data.formats import Origin
from pharos.data.parts import SplitPart
from pharos.data.tokenise import Skipped

LONG_SHOWN = 20


@dataclass(slots=True, kw_only=True)
class Ledger:
    """limit: how many rows of the split are used at most. num_rows counts them before any is left out."""

    limit: int | None
    num_rows: int = 0
    num_kept: int = 0
    num_long: int = 0
    longest: int = 0
    long: list[tuple[Origin, int]] = field(default_factory=list)
    num_cut_at_turn: int = 0
    num_cut_inside: int = 0
    first_cut_inside: Origin | None = None
    num_skipped: int = 0
    first_skipped: Skipped | None = None
    least_skipped_tokens: int = 0
    end_of_turn: int | None = None
    _shortest: int | None = None
    _arrays: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def room(self) -> int | None:
        return None if self.limit is None else self.limit - self.num_rows

    def take(self, part: SplitPart, mixed_part: int = 0) -> SplitPart:
        """Book a part as far as the limit lets it in; returns what is in."""
        room = self.room
        part = part if room is None else part.cut(room)
        self.num_rows += part.num_rows
        self.num_kept += len(part.lengths)
        self.num_long += len(part.long)
        self.longest = max([self.longest, *(num_tokens for _, _, num_tokens in part.long)])
        self.long += [(origin, num_tokens) for _, origin, num_tokens in part.long[: LONG_SHOWN - len(self.long)]]
        self.num_cut_at_turn += len(part.cut_at_turn)
        self.num_cut_inside += len(part.cut_inside)
        self.first_cut_inside = self.first_cut_inside or next((origin for _, origin in part.cut_inside), None)
        for _, skipped in part.skipped:
            self.first_skipped = self.first_skipped or skipped
            tokens = skipped.num_tokens
            self.least_skipped_tokens = min(self.least_skipped_tokens, tokens) if self.num_skipped else tokens
            self.num_skipped += 1
        if len(part.lengths):
            shortest = int(part.lengths.min())
            if self._shortest is None or shortest < self._shortest:
                self._shortest, self.end_of_turn = shortest, part.end_of_turn
            parts = np.full(len(part.lengths), mixed_part, dtype=np.uint16)
            self._arrays.append((part.lengths, part.num_trained, part.digests, parts))
        return part

    def lengths(self) -> np.ndarray:
        """Tokens of each row that is kept, int32."""
        return self._column(0)

    def num_trained(self) -> np.ndarray:
        return self._column(1)

    def digests(self) -> np.ndarray:
        return self._column(2)

    def mixed_parts(self) -> np.ndarray:
        """The place of each kept row's file among mixed sources."""
        return self._column(3)

    def _column(self, index: int) -> np.ndarray:
        return np.concatenate([arrays[index] for arrays in self._arrays] or [np.empty(0, dtype=np.int32)])
