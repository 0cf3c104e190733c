"""The values of one row, taken one by one, each mistake a sentence that names its place in the row.

Knows neither forms nor roles; those stand in `turns.py` and in the modules of the forms.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that hold text: OpenAI's chat completions, and its responses."""
HINT_CHARACTERS, HINT_NAMES = 80, 200
_JSON = re.compile(r"\s*[\[{]")


class Cells:
    """One row under the keys of its form. columns: the file's own names of keys, where they differ.

    Mistakes collect in `mistakes`; a value that is wrong is read as an empty one, so that reading goes on.
    num_inserted: turns that stand before the row's list of turns and come from elsewhere in the row.
    """

    __slots__ = ("columns", "mistakes", "num_inserted", "row")

    def __init__(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        self.row = row
        self.columns = columns
        self.mistakes: list[str] = []
        self.num_inserted = 0

    def column(self, key: str) -> str:
        return self.columns.get(key, key)

    def get(self, key: str) -> Any:
        """The value under a key; none where it is missing too, since files write null for what is not there."""
        return self.row.get(self.columns.get(key, key))

    def text(self, key: str) -> str:
        """The text that must stand under a key."""
        column = self.columns.get(key, key) if self.columns else key
        return read_text(self.row, column, column, self.mistakes)

    def optional_text(self, key: str) -> str:
        """The text under a key, empty where it is missing, null or blank."""
        value = self.get(key)
        if value is None or value == "":
            return ""
        return text_at(value, self.column(key), self.mistakes, may_be_blank=True)

    def list_of(self, key: str, what: str) -> list[Any]:
        """The list under a key, or written there as JSON text; empty, with a mistake, where it is none."""
        value = nested(self.get(key))
        if isinstance(value, list):
            return value
        self.mistakes.append(f"{self.column(key)} must be a list of {what}, not {kind_of(value)}.")
        return []


def read_text(
    holder: Mapping[str, Any], key: str, place: str, mistakes: list[str], *, may_be_blank: bool = False
) -> str:
    """The text under a key, the parts of a list of parts end to end.

    A mistake, and an empty text, where it is none, is blank though it may not be, or cannot be written as UTF-8.
    """
    text = holder.get(key)
    if isinstance(text, list):
        text = _joined(text, place, mistakes)
        if text is None:
            return ""
    if key not in holder:
        mistakes.append(f"{place} is missing.{hint(key, holder)}")
    elif text is None and may_be_blank:
        return ""
    elif not isinstance(text, str):
        mistakes.append(f"{place} must be text, not {kind_of(text)}.")
    elif not may_be_blank and not text.strip():
        mistakes.append(f"{place} is empty.")
    elif not is_unicode(text):
        mistakes.append(f"{place} holds half of a surrogate pair, an escape like \\ud83d without its second half.")
    else:
        return text
    return ""


def text_at(value: Any, place: str, mistakes: list[str], *, may_be_blank: bool = False) -> str:
    """`read_text` of a value that stands under no key."""
    return read_text({place: value}, place, place, mistakes, may_be_blank=may_be_blank)


def nested(value: Any) -> Any:
    """What a text holds that is a JSON list or object, as tables (CSV, Parquet) often write them; else the value."""
    if isinstance(value, str) and _JSON.match(value):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain_json(value: Any) -> bool:
    """Whether a value can be written as JSON in UTF-8: templates write tools and calls so."""
    try:
        return is_unicode(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return False


def kind_of(value: object) -> str:
    """What a value is, in words: 'an object', 'text that is not JSON'."""
    if isinstance(value, str) and _JSON.match(value):
        try:
            json.loads(value)
        except (ValueError, RecursionError) as error:
            return f"text that is not JSON ({error})"
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), f"a {type(value).__name__}")


def short(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = kind_of(value)
    return text if len(text) <= 40 else text[:37] + "..."


def one_of(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def hint(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?', or nothing where no known word is near, or too long a one to compare in good time."""
    if len(word) > HINT_CHARACTERS:
        return ""
    names = [name for name in islice(known, HINT_NAMES) if isinstance(name, str) and len(name) <= HINT_CHARACTERS]
    near = difflib.get_close_matches(word, names, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _joined(parts: list[Any], place: str, mistakes: list[str]) -> str | None:
    """The texts of a content's parts end to end, as chat templates write them; none after a mistake."""
    before = len(mistakes)
    texts = []
    for index, part in enumerate(parts):
        where = f"{place}[{index}]"
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if not isinstance(part, dict):
            mistakes.append(f"{where} must be an object like {{type: text, text: ...}}, not {kind_of(part)}.")
        elif kind not in TEXT_PARTS:
            mistakes.append(f"{where} is of type {short(kind)}; only parts of type text can be trained on.")
        else:
            texts.append(read_text(part, "text", f"{where}.text", mistakes, may_be_blank=True))
    return "".join(texts) if len(mistakes) == before else None
