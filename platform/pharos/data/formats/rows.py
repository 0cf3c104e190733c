"""What a row of data is once it has been read: a conversation, a text, a preference, a judged answer, or tagged tokens.

Values only. How they are read from the forms in which people write them stands in the modules beside this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function that the assistant calls. arguments: a JSON object."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None

    def message(self) -> dict[str, Any]:
        """As chat templates expect it in `message.tool_calls`."""
        call = {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}
        return call if self.id is None else {"id": self.id, **call}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side says. tool_calls: only on assistant turns; name, tool_call_id: which tool answers, and to what."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None

    def message(self) -> dict[str, Any]:
        """As chat templates expect it in `messages`: nothing but role and content where there is no more."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.message() for call in self.tool_calls]
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


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
    """A system turn or none, then user and assistant by turns, tools' answers between; at least one assistant turn.

    tools: the functions that may be called, as JSON schemas, for the template to write.
    """

    turns: tuple[Turn, ...]
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> bytes:
        """SHA-256 of what is said by whom: the same in whichever form, file or order the row stands."""
        return _sha256([*_said(self.turns), {"tools": self.tools}] if self.tools else _said(self.turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text to train on as a whole, as in pre-training."""

    text: str
    origin: Origin

    @property
    def digest(self) -> bytes:
        return _sha256(["text", self.text])


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Two ways to go on after a prompt, the better and the worse; each begins with an assistant turn."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> bytes:
        said = [_said(turns) for turns in (self.prompt, self.chosen, self.rejected)]
        return _sha256(["preference", *said, *self.tools])


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A conversation whose last answer was judged: label says whether it is wanted (KTO)."""

    turns: tuple[Turn, ...]
    label: bool
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> bytes:
        return _sha256(["labelled", _said(self.turns), self.label, *self.tools])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """A sentence of tokens with a tag each. scheme: BIO, BMES, BIOES or BILOU; none where tags are plain classes.

    notes: what is unusual in the order of the tags, though no mistake.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    scheme: str | None
    origin: Origin
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> bytes:
        return _sha256(["tagged", self.tokens, self.tags])


Row = Conversation | Text | Preference | Labelled | Tagged
Trainable = Conversation | Text


def _said(turns: Sequence[Turn]) -> list[Any]:
    """Role and content of each turn, and what else a turn has; so that a turn without tools hashes as it always did."""
    return [
        [turn.role, turn.content, *([turn.message()] if turn.tool_calls or turn.name or turn.tool_call_id else [])]
        for turn in turns
    ]


def _sha256(said: object) -> bytes:
    return hashlib.sha256(json.dumps(said).encode()).digest()
