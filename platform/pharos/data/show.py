"""Rows as the model reads them: their tokens as text, with what is trained and what is a special token told apart.

For a person to look at. The text is that of the tokens themselves, so a wrong template or mask shows here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pharos.data.tokenise import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Neighbouring tokens of one sort."""

    text: str
    trained: bool
    special: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPart:
    """One text that the model reads. title: which of a row's texts, if it has several. marked: what is told apart."""

    title: str
    num_tokens: int
    num_trained: int
    pieces: tuple[Piece, ...]
    marked: str = "trained"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """place: FILE:LINE or FILE[INDEX]. note: what becomes of the row, where it is not simply kept."""

    place: str
    split: str
    note: str
    parts: tuple[ShownPart, ...]


def special_tokens(tokenizer: TextTokenizer) -> dict[str, int]:
    """The tokens that stand for no text of their own, by their text: turn markers, end of text."""
    added = tokenizer.tokenizer.get_added_tokens_decoder()
    return {token.content: number for number, token in added.items() if token.special}


def shown_part(title: str, tokens: np.ndarray, trained: np.ndarray, tokenizer: TextTokenizer) -> ShownPart:
    """Tokens (T,) int32 with their mask (T,) bool, for a person."""
    pieces = pieces_of(tokens, trained, tokenizer)
    return ShownPart(title=title, num_tokens=len(tokens), num_trained=int(trained.sum()), pieces=pieces)


def words_part(words: Sequence[tuple[str, bool]]) -> ShownPart:
    """Words with whether each is to be told apart from the others, for a person."""
    pieces = []
    for index, (word, is_marked) in enumerate(words):
        pieces += [Piece(text=" ", trained=False, special=False)] if index else []
        pieces.append(Piece(text=word, trained=is_marked, special=False))
    num_marked = sum(is_marked for _, is_marked in words)
    return ShownPart(title="", num_tokens=len(words), num_trained=num_marked, pieces=tuple(pieces), marked="tagged")


def pieces_of(tokens: np.ndarray, trained: np.ndarray, tokenizer: TextTokenizer) -> tuple[Piece, ...]:
    """The text of tokens (T,) int32 with their mask (T,) bool, cut where trained or special changes.

    A piece is what it adds to the text of all tokens before it: a token alone may lose the space that it begins with.
    """
    if not len(tokens):
        return ()
    special = np.isin(tokens, list(special_tokens(tokenizer).values()))
    changes = np.flatnonzero((trained[1:] != trained[:-1]) | (special[1:] != special[:-1])) + 1
    starts, ends = [0, *changes.tolist()], [*changes.tolist(), len(tokens)]
    decode = tokenizer.tokenizer.decode
    pieces, before = [], ""
    for start, end in zip(starts, ends, strict=True):
        text = decode(tokens[:end].tolist(), skip_special_tokens=False)
        is_longer = text.startswith(before)
        own = text[len(before) :] if is_longer else decode(tokens[start:end].tolist(), skip_special_tokens=False)
        pieces.append(Piece(text=own, trained=bool(trained[start]), special=bool(special[start])))
        before = text
    return tuple(pieces)
