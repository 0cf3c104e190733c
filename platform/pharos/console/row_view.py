"""Rows as the model reads them: special tokens visible, trained tokens highlighted, long rows folded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from pharos.data.findings import CONTROL
from pharos.data.show import Piece, ShownRow
from pharos.plan import words

TRAINED, SPECIAL = "black on green", "cyan"
STYLES = {(False, False): "", (False, True): SPECIAL, (True, False): TRAINED, (True, True): f"{TRAINED} underline"}
PIECE_SHOWN, ROW_SHOWN = 600, 2400  # characters; what is longer is folded in its middle


def show_rows(rows: Sequence[ShownRow], *, console: Console | None = None) -> None:
    """Print rows with what is trained highlighted: by colour in a terminal, else between the brackets ⟦ and ⟧."""
    console = console or Console(highlight=False)
    if not rows:
        return
    trained = ("trained", TRAINED) if console.is_terminal else "⟦trained⟧"
    console.print(Text.assemble("\nrows as the model reads them: ", trained, ", ", ("special token", SPECIAL)))
    for row in rows:
        console.print(Text.assemble("\n", (row.place, "bold"), f"  {row.split}{_after(row.note)}"), soft_wrap=True)
        for part in row.parts:
            title = (f"{part.title}: ", "bold") if part.title else ""
            counts = f"{words.plural(part.num_tokens, 'token')}, {part.num_trained:,} of them {part.marked}"
            console.print(Text.assemble(title, (counts, "dim")))
            console.print(row_text(part.pieces, is_coloured=console.is_terminal), soft_wrap=not console.is_terminal)


def row_text(pieces: Sequence[Piece], *, is_coloured: bool) -> Text:
    """A row's pieces, folded where they are long, with no character left that a terminal would obey."""
    text = Text()
    for trained, run in groupby(_folded(pieces), key=lambda piece: piece.trained):
        marks = ("⟦", "⟧") if trained and not is_coloured else ("", "")
        text.append(marks[0])
        for piece in run:
            text.append(visible(piece.text), style=STYLES[trained, piece.special])
        text.append(marks[1])
    text.rstrip()
    return text


def _after(note: str) -> str:
    return f", {visible(note)}" if note else ""


def visible(text: str) -> str:
    """Control characters as pictures or escapes; line feeds and tabs as they are."""
    return CONTROL.sub(lambda match: _picture(match[0]), text)


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return {0x7F: "␡", 0xFFFD: "\ufffd"}.get(code, f"\\u{code:04x}")


def _folded(pieces: Sequence[Piece]) -> list[Piece]:
    """Long pieces, then a long row, without their middle; what is left out is counted where it stood."""
    folded = [_fold(piece) for piece in pieces]
    room = ROW_SHOWN // 2
    if sum(len(piece.text) for piece in folded) <= ROW_SHOWN:
        return folded
    head = _fitting(folded, room)
    tail = _fitting(folded[head:][::-1], room)
    left_out = sum(len(piece.text) for piece in pieces[head : len(pieces) - tail])
    if not left_out:
        return folded
    middle = Piece(text=f"\n... {left_out:,} characters ...\n", trained=False, special=True)
    return [*folded[:head], middle, *folded[len(folded) - tail :]]


def _fold(piece: Piece) -> Piece:
    over = len(piece.text) - PIECE_SHOWN
    if over <= 0:
        return piece
    half = PIECE_SHOWN // 2
    text = f"{piece.text[:half]} ... {over:,} characters ... {piece.text[-half:]}"
    return Piece(text=text, trained=piece.trained, special=piece.special)


def _fitting(pieces: Sequence[Piece], room: int) -> int:
    """How many of the first pieces have `room` characters together, at least one."""
    used = 0
    for index, piece in enumerate(pieces):
        used += len(piece.text)
        if used > room:
            return max(1, index)
    return len(pieces)
