"""What can be found in rows, each with one wording for `pharos plan`, the sweep and `pharos data check`.

Pure, and beneath the rest of the room: repeats and overlaps by short digests, characters that do not belong in text,
and mistakes of rows taken apart into place, kind, reason and remedy.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffd]")
"""Control characters but line feed and tab; and what a wrong decoding leaves: byte order marks, replacements."""

CONTROL_NAMES = {
    "\x00": "NUL",
    "\x07": "bell",
    "\x08": "backspace",
    "\x0b": "vertical tab",
    "\x0c": "form feed",
    "\r": "carriage return",
    "\x1b": "escape",
    "\x7f": "delete",
    "\ufeff": "byte order mark",
    "\ufffd": "replacement of a byte that could not be read",
}
DATE_WARNING = "the chat template writes today's date: these rows keep the date of their preparation"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """A mistake in one row, or in a file as a whole. place: FILE:LINE, FILE[INDEX] or FILE."""

    place: str
    kind: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """name: what such mistakes are called together. remedy: for sentences that do not say what would help."""

    name: str
    pattern: re.Pattern[str]
    remedy: str = ""


# The first whose pattern stands in the sentence. The sentences are those of load, formats, tokenise and template.
_KINDS = tuple(
    _Kind(name=name, pattern=re.compile(pattern), remedy=remedy)
    for name, pattern, remedy in (
        ("not JSON", r"^not JSON", "Correct it there: a bracket, a quote or a comma is wrong or missing."),
        ("not UTF-8", r"^not UTF-8", ""),
        ("template refuses", r"chat template", "Correct the row, or use data.template=plain."),
        (
            "role order",
            r"must alternate|may be one\.|nothing to train on",
            "Put the turns in order, or leave it out.",
        ),
        ("unknown role", r" is no role", ""),
        ("no known form", r"no known form|sets of keys", "Write each row as an object with such keys."),
        ("empty", r" is empty\.|holds no row", "Fill it in, or remove the row."),
        ("half a surrogate pair", r"surrogate", "Write the character itself, or both halves."),
        ("missing key", r" is missing", "Add it, or remove the row."),
        ("wrong type", r" must be ", "Write it so, or remove the row."),
    )
)
_PLACE = re.compile(r"(?P<place>.+?(?::\d+(?=:)|\[\d+\])?)(?P<column>:\d+)?: (?P<said>.+)", re.DOTALL)
_REMEDY = re.compile(
    r"^(.+?[.:;?]) ((?:Use|Write|Convert|Give|Did you mean|Add|Set|Correct|Remove|Keep|Check|Fetch|Accept) .+)$",
    re.DOTALL,
)


def row_error(mistake: str) -> RowError:
    """A mistake as the readers append it, `FILE:ROW: reason. Remedy.`, taken apart."""
    match = _PLACE.match(mistake)
    place, column, said = (match["place"], match["column"], match["said"]) if match else ("", None, mistake)
    kind = next((kind for kind in _KINDS if kind.pattern.search(said)), None)
    parts = _REMEDY.match(said)
    reason, remedy = (parts[1], parts[2]) if parts else (said, kind.remedy if kind else "")
    reason = f"at column {column[1:]}: {reason}" if column else reason
    return RowError(place=place, kind=kind.name if kind else "other", reason=reason, remedy=remedy)


def short_digest(digest: bytes) -> int:
    """Eight bytes of a row's SHA-256: among a hundred million rows two share them by chance once in four thousand."""
    return int.from_bytes(digest[8:16])


def repeats(digests: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that say what an earlier one says, in order, and the first row of each: indices (R,), int64."""
    digests = np.asarray(digests, dtype=np.uint64)
    in_order = np.sort(digests)
    if not (in_order[1:] == in_order[:-1]).any():  # the usual case, for a third of the memory
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    order = np.argsort(digests, kind="stable")
    is_new = np.concatenate([[True], in_order[1:] != in_order[:-1]])
    first_of = order[is_new][np.cumsum(is_new) - 1]
    repeat, first = order[~is_new], first_of[~is_new]
    by_place = np.argsort(repeat, kind="stable")
    return repeat[by_place], first[by_place]


def shared_rows(digests: Mapping[str, Sequence[int] | np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """For each two splits that share rows, (one, other): the rows of other that stand in one too, indices (S,)."""
    arrays = {split: np.asarray(part, dtype=np.uint64) for split, part in digests.items()}
    found = {}
    for one, other in combinations(arrays, 2):
        shared = np.flatnonzero(np.isin(arrays[other], arrays[one]))
        if len(shared):
            found[one, other] = shared
    return found


def overlap_warning(one: str, other: str, *, num_shared: int, num_rows: int) -> str:
    """What is said where `num_shared` of the `num_rows` rows of split `other` stand in split `one` too."""
    return (
        f"data.{other}: {num_shared:,} of {num_rows:,} rows also stand in data.{one}, "
        "so its results flatter. Remove them from one of the two."
    )


def cut_at_turn_warning(split: str, num_rows: int, max_length: int) -> str:
    return (
        f"data.{split}: {num_rows:,} rows were cut at a turn: all that follows the last answer within "
        f"data.max_length={max_length} is left out"
    )


def cut_inside_warning(split: str, num_rows: int, max_length: int, *, first: str) -> str:
    """first: where the first of these rows stands."""
    return (
        f"data.{split}: {num_rows:,} rows were cut inside a turn, the first, {first}: their first exchange alone is "
        f"longer than data.max_length={max_length}; its answer has no end"
    )


def skipped_warning(split: str, num_rows: int, named_in: str = "") -> str:
    """named_in: the file that names these rows, where one is written."""
    return f"data.{split}: {num_rows:,} rows were skipped" + (f"; {named_in} names them" if named_in else "")


def repeats_warning(split: str, num_rows: int) -> str:
    rows, they = ("1 row repeats", "it") if num_rows == 1 else (f"{num_rows:,} rows repeat", "they")
    return (
        f"data.{split}: {rows} an earlier row word for word, so {they} weigh{'s' * (num_rows == 1)} more than others. "
        f"Remove {'it' if num_rows == 1 else 'them'} if that is not meant."
    )


def character_name(character: str) -> str:
    """U+000D carriage return: a character that cannot be seen, by code and name."""
    name = CONTROL_NAMES.get(character) or unicodedata.name(character, "control character").lower()
    return f"U+{ord(character):04X} {name}"
