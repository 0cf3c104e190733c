"""The forms in which people write rows, each read as a conversation: roles, contents and their order.

One row is one JSON object. Nothing is known here of files, templates or tokens; mistakes are sentences about one row.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a row stands: the line of a JSONL file (from 1), or the index in an array (from 0)."""

    file: str
    row: int
    is_line: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.row}" if self.is_line else f"{self.file}[{self.row}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A system turn or none, then user and assistant by turns; at least one assistant turn."""

    turns: tuple[Turn, ...]
    origin: Origin

    @property
    def digest(self) -> bytes:
        """SHA-256 of what is said by whom: the same in whichever form, file or order the row stands."""
        said = [[turn.role, turn.content] for turn in self.turns]
        return hashlib.sha256(json.dumps(said).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A form of rows. A row has it if it has all `keys`; `read` makes turns and appends what is wrong to a list."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[Mapping[str, Any], list[str]], list[Turn]]
    optional_keys: tuple[str, ...] = ()
    turn_keys: tuple[str, ...] = ()


def detect_format(row: Any) -> Format | None:
    """The first form whose keys all stand in the row; none where the row is no JSON object or has no known form."""
    if not isinstance(row, dict):
        return None
    return next((form for form in FORMATS if all(key in row for key in form.keys)), None)


def read_row(row: Any, form: Format, origin: Origin) -> tuple[Conversation | None, list[str]]:
    """The conversation of a row, or none and what is wrong with it, one sentence a mistake."""
    if not isinstance(row, dict):
        return None, [f"a row must be a JSON object, not {_kind(row)}."]
    missing = [key for key in form.keys if key not in row]
    if missing:
        return None, [f"{missing[0]!r} is missing; the first row has the form {form.name}.{hint(missing[0], row)}"]
    mistakes: list[str] = []
    turns = form.read(row, mistakes)
    if not mistakes:
        mistakes = _order_mistakes(turns)
    return (None, mistakes) if mistakes else (Conversation(turns=tuple(turns), origin=origin), [])


def unused_keys(row: Mapping[str, Any], form: Format) -> set[str]:
    """Keys that the form does not read; `id` goes without saying. Those of turns are written messages[].weight."""
    unused = set(row) - {*form.keys, *form.optional_keys, "id"}
    if form.turn_keys:
        name = form.keys[0]
        unused |= {f"{name}[].{key}" for turn in row[name] for key in set(turn) - set(form.turn_keys)}
    return unused


def hint(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?', or nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _turns_under(key: str, role_key: str, content_key: str, roles: Mapping[str, Role]) -> Format:
    """The form of a list of turns, each an object of role and content."""

    def read(row: Mapping[str, Any], mistakes: list[str]) -> list[Turn]:
        if not isinstance(row[key], list):
            mistakes.append(f"{key} must be a list of turns, not {_kind(row[key])}.")
            return []
        turns = []
        for index, turn in enumerate(row[key]):
            place = f"{key}[{index}]"
            if not isinstance(turn, dict):
                mistakes.append(f"{place} must be an object with {role_key} and {content_key}, not {_kind(turn)}.")
                continue
            role = turn.get(role_key)
            if not isinstance(role, str) or role not in roles:
                mistakes.append(f"{place}.{role_key}={_short(role)} is no role. Use {_one_of(roles)}.")
                continue
            turns.append(Turn(role=roles[role], content=_text(turn, content_key, f"{place}.{content_key}", mistakes)))
        return turns

    name = key if key == "messages" else f"{key}[{role_key}, {content_key}]"
    return Format(name=name, keys=(key,), read=read, turn_keys=(role_key, content_key))


def _pair(user_key: str, assistant_key: str) -> Format:
    """The form of one question and its answer."""

    def read(row: Mapping[str, Any], mistakes: list[str]) -> list[Turn]:
        return [
            Turn(role="user", content=_text(row, user_key, user_key, mistakes)),
            Turn(role="assistant", content=_text(row, assistant_key, assistant_key, mistakes)),
        ]

    return Format(name=f"{user_key}/{assistant_key}", keys=(user_key, assistant_key), read=read)


def _read_alpaca(row: Mapping[str, Any], mistakes: list[str]) -> list[Turn]:
    """The instruction, a blank line and the input, where there is one, make the user's turn."""
    asked = _text(row, "instruction", "instruction", mistakes)
    if row.get("input") not in (None, ""):
        asked += "\n\n" + _text(row, "input", "input", mistakes)
    return [
        Turn(role="user", content=asked),
        Turn(role="assistant", content=_text(row, "output", "output", mistakes)),
    ]


MESSAGES_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
CONVERSATIONS_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", **MESSAGES_ROLES}

FORMATS = (
    _turns_under("messages", "role", "content", MESSAGES_ROLES),
    _turns_under("conversations", "from", "value", CONVERSATIONS_ROLES),
    _pair("prompt", "completion"),
    _pair("question", "answer"),
    Format(
        name="instruction/input/output",
        keys=("instruction", "output"),
        read=_read_alpaca,
        optional_keys=("input",),
    ),
)


def _text(holder: Mapping[str, Any], key: str, place: str, mistakes: list[str]) -> str:
    """The text under a key. A mistake, and an empty text, where it is none, is blank or cannot be written as UTF-8."""
    text = holder.get(key)
    if key not in holder:
        mistakes.append(f"{place} is missing.{hint(key, holder)}")
    elif not isinstance(text, str):
        mistakes.append(f"{place} must be text, not {_kind(text)}.")
    elif not text.strip():
        mistakes.append(f"{place} is empty.")
    elif not _is_unicode(text):
        mistakes.append(f"{place} holds half of a surrogate pair, an escape like \\ud83d without its second half.")
    else:
        return text
    return ""


def _order_mistakes(turns: list[Turn]) -> list[str]:
    """At most one sentence: what comes after the first wrong turn is wrong by it."""
    if all(turn.role != "assistant" for turn in turns):
        return ["no turn is the assistant's: there is nothing to train on."]
    spoken = turns[1:] if turns[0].role == "system" else turns
    first = len(turns) - len(spoken)
    for index, turn in enumerate(spoken):
        expected = "assistant" if index % 2 else "user"
        if turn.role == "system":
            return [f"turn {first + index} is a system turn; only the first turn may be one."]
        if turn.role != expected:
            before = f"follows another {turn.role} turn" if index else "comes before any user turn"
            return [f"turn {first + index} is the {turn.role}'s and {before}; user and assistant must alternate."]
    return []


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds[type(value)]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _one_of(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"
