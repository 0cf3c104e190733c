"""What the kinds of rows have in them, for checking and showing: the one place that tells kinds apart.

A new kind of row is one more case in each of these functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from pharos.data.formats import Conversation, Labelled, Preference, Row, Tagged, Text, Trainable, Turn


def said_in(row: Row) -> list[tuple[str, str]]:
    """What people say in a row: (where in the row, text)."""
    match row:
        case Conversation() | Labelled():
            return _said("turn", row.turns)
        case Text():
            return [("text", row.text)]
        case Preference():
            return [
                *_said("prompt, turn", row.prompt),
                *_said("chosen, turn", row.chosen),
                *_said("rejected, turn", row.rejected),
            ]
        case Tagged():
            return [(f"token {index}", token) for index, token in enumerate(row.tokens)]


def num_turns(row: Row) -> int:
    """Turns of a row, those of both answers counted; a text or a sentence of tags is one."""
    match row:
        case Conversation() | Labelled():
            return len(row.turns)
        case Preference():
            return len(row.prompt) + len(row.chosen) + len(row.rejected)
        case Text() | Tagged():
            return 1


def readings(row: Row) -> list[tuple[str, Trainable]]:
    """What a model would read of a row, each with a title; the title is empty where there is but one.

    Tagged tokens are nothing that is written by a template: they are shown as they are, see `tagged_text`.
    """
    match row:
        case Conversation() | Text():
            return [("", row)]
        case Labelled():
            reading = Conversation(turns=row.turns, origin=row.origin, tools=row.tools)
            return [("wanted" if row.label else "not wanted", reading)]
        case Preference():
            return [
                (title, Conversation(turns=(*row.prompt, *answer), origin=row.origin, tools=row.tools))
                for title, answer in (("chosen", row.chosen), ("rejected", row.rejected))
            ]
        case Tagged():
            return []


def tagged_words(row: Row) -> list[tuple[str, bool]]:
    """Each token of a tagged row with its tag behind a slash, and whether it is tagged as something at all."""
    if not isinstance(row, Tagged):
        return []
    words = zip(row.tokens, row.tags, strict=True)
    return [(token if tag == "O" else f"{token}/{tag}", tag != "O") for token, tag in words]


def notes_of(row: Row) -> tuple[str, ...]:
    """What is unusual in a row, though no mistake."""
    return row.notes if isinstance(row, Tagged) else ()


def _said(where: str, turns: Sequence[Turn]) -> list[tuple[str, str]]:
    return [(f"{where} {index}", turn.content) for index, turn in enumerate(turns)]
