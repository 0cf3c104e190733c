"""Which form a row has, and the row read in it: as a file's first row shows, or data.format and data.columns say.

All forms meet here; each is read in a module of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pharos.data.formats.cells import Cells, hint, kind_of, nested, one_of, short
from pharos.data.formats.conversations import CONVERSATIONS, TEXT
from pharos.data.formats.form import Format
from pharos.data.formats.preferences import PREFERENCES
from pharos.data.formats.rows import Labelled, Origin, Preference, Row, Tagged
from pharos.data.formats.tagged import TAGGED
from pharos.data.formats.turns import TURN_KEYS
from pharos.spec.format_names import AUTO, canonical_format

# In the order in which they are looked for: what has more keys of its own first, plain text last, since many tables
# carry a column text beside the columns that it was made from.
FORMATS: tuple[Format, ...] = (*PREFERENCES, *TAGGED, *CONVERSATIONS, TEXT)

KEYS_SHOWN = 20

# Of the kinds that cannot be trained on yet: what they are for, and what can be done with them meanwhile.
UNTRAINED: Mapping[type, tuple[str, str]] = {
    Preference: (
        "preference training",
        " To train on the better answers alone, set data.format=prompt/completion and "
        "data.columns={completion: chosen}.",
    ),
    Labelled: (
        "training on judged answers",
        " To train on all of them alike, set data.format to messages, sharegpt, alpaca or prompt/completion.",
    ),
    Tagged: ("token classification", ""),
}


def detect_format(row: Any, *, name: str = AUTO, columns: Mapping[str, str] | None = None) -> Format | None:
    """The form of a file by its first row, or the one that `name` gives; none where no form is known for the row.

    name: data.format. columns: data.columns, the file's own names by the form's keys.
    """
    own = None if name == AUTO else canonical_format(name)
    columns = columns or {}
    candidates = [_renamed(form, columns) for form in _forms(own) if columns.keys() <= _known_keys(form).keys()]
    if own is None:
        if not isinstance(row, dict):
            return None
        # Tables write null under columns that only other tables of their kind fill.
        filled = {key: value for key, value in row.items() if value is not None}
        found = next(
            (form for written in (filled, row) for form in candidates if form.has_keys(Cells(written, form.columns))),
            None,
        )
        return found and replace(found, needed_by=f"the first row has the form {found.name}")
    cells = row if isinstance(row, dict) else {}
    by_key = (form for form in candidates if all(form.columns.get(key, key) in cells for key in form.keys))
    chosen = next(by_key, candidates[0] if candidates else _forms(own)[0])
    return replace(chosen, needed_by=f"data.format={name} needs it")


def read_row(row: Any, form: Format, origin: Origin) -> tuple[Row | None, list[str]]:
    """The row in its form, or none and what is wrong with it, one sentence a mistake."""
    if not isinstance(row, dict):
        return None, [f"a row must be a JSON object, not {kind_of(row)}."]
    cells = Cells(row, form.columns)
    missing = [cells.column(key) for key in form.keys if cells.column(key) not in row]
    if missing:
        needed_by = form.needed_by or f"the form {form.name} needs it"
        return None, [f"{missing[0]!r} is missing; {needed_by}.{hint(missing[0], row)}"]
    read = form.read(cells, origin)
    return (None, cells.mistakes) if cells.mistakes else (read, [])


def unused_keys(row: Mapping[str, Any], form: Format) -> set[str]:
    """Keys with values that the form does not read; `id` goes without saying. Those of turns are written a[].b."""
    unused: set[str] = set()
    if not row.keys() <= form.read_columns:
        unused = {key for key in row.keys() - form.read_columns if row[key] is not None and key != "id"}
    for key in form.turn_keys:
        column = form.columns.get(key, key)
        turns = nested(row.get(column))
        for turn in [turns] if isinstance(turns, dict) else turns if isinstance(turns, list) else []:
            if isinstance(turn, dict) and not turn.keys() <= TURN_KEYS:
                unused |= {f"{column}[].{name}" for name in turn.keys() - TURN_KEYS if turn[name] is not None}
    return unused


def unknown_form(row: Any, columns: Mapping[str, str] | None = None) -> str:
    """What to say of a first row that has no known form."""
    by_name = {form.name: form for form in reversed(FORMATS) if form.kind is not Labelled}
    forms = ", ".join(dict.fromkeys(" + ".join(form.keys) for form in reversed(by_name.values())))
    if not isinstance(row, dict):
        return f"a row must be a JSON object with one of these sets of keys: {forms}."
    known = sorted({key for form in FORMATS for key in form.keys})
    first = list(row)[:KEYS_SHOWN]
    near = next((found for key in first if (found := hint(str(key), known))), "")
    keys = ", ".join(map(short, first)) + (", ..." if len(row) > len(first) else "") or "of an empty object"
    renamed = f" With data.columns={dict(columns)}" if columns else ""
    return (
        f"the keys {keys} are no known form.{renamed} Use one of: {forms}; or say with data.format and data.columns "
        f"which column is which.{near}"
    )


def column_mistakes(name: str, columns: Mapping[str, str] | None) -> list[str]:
    """What is wrong with data.columns before any row is read: keys that the form, or any form, does not have."""
    own = None if name == AUTO else canonical_format(name)
    known = dict.fromkeys(key for form in _forms(own) for key in _known_keys(form))
    whose = "no form of rows" if own is None else f"data.format={name}"
    has = "has" if own is None else "does not have"
    return [
        f"data.columns.{key}={column} is not read: {whose} {has} a key {key}.{hint(key, known)} "
        f"Its keys: {one_of(known)}."
        for key, column in (columns or {}).items()
        if key not in known
    ]


def training_mistake(form: Format, key: str) -> str | None:
    """Why rows of a form cannot be trained on, if so. key: the field that names them, data.train for one."""
    if form.kind not in UNTRAINED:
        return None
    purpose, remedy = UNTRAINED[form.kind]
    return (
        f"{key}: rows of the form {form.name} ({', '.join(form.keys)}) are for {purpose}, which Pharos cannot do yet; "
        f"`pharos data check` reads them.{remedy}"
    )


def _forms(own_name: str | None) -> list[Format]:
    return [form for form in FORMATS if own_name in (None, form.name)]


def _known_keys(form: Format) -> dict[str, None]:
    """Every key that data.columns may give for a form, in the order of the form."""
    return dict.fromkeys((*form.keys, *form.optional_keys, *form.other_keys))


def _renamed(form: Format, columns: Mapping[str, str]) -> Format:
    own_keys = {*form.keys, *form.optional_keys}
    own = {form.other_keys.get(key, key) if key not in own_keys else key: column for key, column in columns.items()}
    return replace(form, columns={key: column for key, column in own.items() if key in own_keys}) if columns else form
