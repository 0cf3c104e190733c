"""Tokens with tags: rows of tokens + tags, CoNLL lines made into such rows, and whether the order of tags holds.

BIO, BMES, BIOES and BILOU mark where spans begin and end; tags of any other shape are classes, and have no order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pharos.data.formats.cells import Cells, kind_of, short, text_at
from pharos.data.formats.form import Format
from pharos.data.formats.rows import Origin, Tagged

# Which letters begin a span, go on within it, end it, and are one of a single token.
SCHEMES: Mapping[str, tuple[str, str, str, str]] = {
    "BIO": ("B", "I", "", ""),
    "BMES": ("B", "M", "E", "S"),
    "BIOES": ("B", "I", "E", "S"),
    "BILOU": ("B", "I", "L", "U"),
}
TAG_KEYS = ("tags", "ner_tags", "labels")
_TAG = re.compile(r"([BIMESLU])(?:[-_](.+))?", re.DOTALL)
_TYPED = re.compile(r"[BIMESLU][-_].+", re.DOTALL)
_BLANKS = re.compile(r"[ \t]+")


def conll_rows(lines: Iterable[str]) -> Iterator[tuple[dict[str, Any], int]]:
    """Sentences of a CoNLL file as rows, each with the number of its first line, from 1.

    The first column is the token and the last its tag, with a tab or spaces between; a blank line ends a sentence.
    -DOCSTART- lines and comments are left out. A line with # in front is a comment unless it ends in a tag: tweets
    begin with #. A token without a tag gets null, which reading the row reports.
    """
    row: dict[str, Any] = {"tokens": [], "tags": []}
    first = width = 0
    for number, line in enumerate(lines, start=1):
        line = (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r\n")
        columns = line.split("\t") if "\t" in line else _BLANKS.split(line.strip(" "))
        is_end = not line.strip() or columns[0] == "-DOCSTART-" or line.startswith("-DOCSTART- ")
        if is_end and row["tokens"]:
            yield row, first
            row = {"tokens": [], "tags": []}
        if is_end or (line.startswith("#") and _is_comment(columns, width, has_tab="\t" in line)):
            continue
        first, width = first if row["tokens"] else number, len(columns)
        row["tokens"].append(columns[0])
        row["tags"].append((columns[-1].strip() or None) if width > 1 else None)
    if row["tokens"]:
        yield row, first


def scheme_of(tags: Iterable[str]) -> str | None:
    """The scheme that tags are of, by their letters; none for classes, such as parts of speech."""
    others = {tag for tag in tags if tag != "O"}
    letters = {match[1] if (match := _TAG.fullmatch(tag)) else "" for tag in others}
    is_typed = any(_TYPED.fullmatch(tag) for tag in others)
    if others and not is_typed and ("" in letters or not letters & {"B", "S", "U"}):
        return None
    if "M" in letters or (letters & {"E", "S"} and not is_typed and "I" not in letters):
        return "BMES"
    if letters & {"L", "U"}:
        return "BILOU"
    return "BIOES" if letters & {"E", "S"} else "BIO"


def check_tags(tags: tuple[str, ...], scheme: str) -> tuple[list[str], list[str]]:
    """What is wrong with the order of tags, at most one sentence, and what is only unusual.

    In BIO an I- after anything but a span of its type begins a span, as the first BIO scheme had it: a note. The other
    schemes close their spans, so that a span without its beginning or end is a mistake.
    """
    begins, goes_on, ends, _ = SCHEMES[scheme]
    notes: list[str] = []
    open_type: str | None = None
    began = 0
    for index, tag in enumerate(tags):
        match = _TAG.fullmatch(tag)
        if tag != "O" and (match is None or match[1] not in SCHEMES[scheme]):
            return [f"tags[{index}]={short(tag)} is no tag of {scheme}; that has {_letters(scheme)} and O."], notes
        letter, kind = (match[1], match[2] or "") if match else ("O", "")
        dash = f"-{kind}" if kind else ""
        if letter in (goes_on, ends):
            if open_type != kind and scheme == "BIO":
                notes.append(f"tags[{index}]={short(tag)} begins a span without {begins}{dash}")
            elif open_type != kind:
                before = repr(tags[index - 1]) if index else "nothing"
                return [f"tags[{index}]={short(tag)} follows {before}; {begins}{dash} must come first."], notes
        elif open_type is not None and scheme != "BIO":
            return [_unfinished(tags, began, f"tags[{index}]={short(tag)} comes", scheme)], notes
        if letter == begins:
            began = index
        open_type = kind if letter in (begins, goes_on) else None
    if open_type is not None and scheme != "BIO":
        return [_unfinished(tags, began, "the sentence ends", scheme)], notes
    return [], notes


def _is_comment(columns: list[str], width: int, *, has_tab: bool) -> bool:
    """Of a line that begins with #. width: how many columns the token lines before have, 0 where none is known."""
    if has_tab:
        return columns[0].startswith("# ")
    ends_in_tag = columns[-1] == "O" or _TYPED.fullmatch(columns[-1]) is not None
    return len(columns) != (width or 2) or not ends_in_tag


def _letters(scheme: str) -> str:
    return ", ".join(letter for letter in SCHEMES[scheme] if letter)


def _unfinished(tags: tuple[str, ...], began: int, what: str, scheme: str) -> str:
    return (
        f"tags[{began}]={short(tags[began])} begins a span, and {what} before its end: "
        f"{SCHEMES[scheme][2]} must end it."
    )


def _reader(tag_key: str, scheme: str | None) -> Callable[[Cells, Origin], Tagged | None]:
    def read(cells: Cells, origin: Origin) -> Tagged | None:
        place = cells.column("tokens")
        written = cells.list_of("tokens", "text")
        tokens = [_token(token, f"{place}[{index}]", cells.mistakes) for index, token in enumerate(written)]
        tags = _tags(cells, tag_key, tokens)
        if cells.mistakes:
            return None
        if not tokens:
            cells.mistakes.append(f"{place} is empty.")
        elif len(tokens) != len(tags):
            cells.mistakes.append(
                f"{place} has {len(tokens)} entries and {cells.column(tag_key)} has {len(tags)}: each token needs "
                "one tag."
            )
        if cells.mistakes:
            return None
        is_numbers = all(type(tag) is int for tag in tags)
        names = tuple(map(str, tags))
        found = scheme or (None if is_numbers else scheme_of(names))
        mistakes, notes = ([], []) if found is None else check_tags(names, found)
        cells.mistakes += mistakes
        if is_numbers:
            notes = ["tags are numbers without their names, so their order was not checked"]
        return Tagged(tokens=tuple(tokens), tags=names, scheme=found, origin=origin, notes=tuple(notes))

    return read


def _token(token: Any, place: str, mistakes: list[str]) -> str:
    if isinstance(token, str) and token and not token.strip():
        return token  # an ideographic space is a token in some Chinese files
    return text_at(token, place, mistakes)


def _tags(cells: Cells, key: str, tokens: list[str]) -> list[str | int]:
    """The tags as they are written: texts, or the numbers of classes."""
    place = cells.column(key)
    tags: list[str | int] = []
    for index, tag in enumerate(cells.list_of(key, "tags")):
        if tag is None:
            token = f" of {short(tokens[index])}" if index < len(tokens) else ""
            cells.mistakes.append(f"{place}[{index}]{token} is missing: each token needs a tag.")
        elif isinstance(tag, str) and tag.strip():
            tags.append(text_at(tag, f"{place}[{index}]", cells.mistakes))
        elif type(tag) is int:
            tags.append(tag)
        else:
            what = "empty" if tag == "" or isinstance(tag, str) else kind_of(tag)
            cells.mistakes.append(f"{place}[{index}] must be a tag, not {what}.")
    return tags


def _form(name: str, tag_key: str, scheme: str | None) -> Format:
    return Format(
        name=name,
        kind=Tagged,
        keys=("tokens", tag_key),
        read=_reader(tag_key, scheme),
        fits=lambda cells: scheme is None,  # a scheme is set by data.format alone; found, it is told by the tags
    )


TAGGED = tuple(
    _form(scheme.lower() if scheme else "tagged", key, scheme) for scheme in (None, *SCHEMES) for key in TAG_KEYS
)
