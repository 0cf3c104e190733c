"""The forms in which people write rows, read as what they mean: conversations, texts, judged answers, tagged tokens.

One row is one JSON object. Nothing is known here of files, templates or tokens; mistakes are sentences about one row.
"""

from pharos.data.formats.cells import hint
from pharos.data.formats.detect import (
    FORMATS,
    column_mistakes,
    detect_format,
    read_row,
    training_mistake,
    unknown_form,
    unused_keys,
)
from pharos.data.formats.form import Format
from pharos.data.formats.rows import (
    Conversation,
    Labelled,
    Origin,
    Preference,
    Role,
    Row,
    Tagged,
    Text,
    ToolCall,
    Trainable,
    Turn,
)
from pharos.data.formats.tagged import conll_rows
from pharos.data.formats.turns import ROLES

__all__ = [
    "FORMATS",
    "ROLES",
    "Conversation",
    "Format",
    "Labelled",
    "Origin",
    "Preference",
    "Role",
    "Row",
    "Tagged",
    "Text",
    "ToolCall",
    "Trainable",
    "Turn",
    "column_mistakes",
    "conll_rows",
    "detect_format",
    "hint",
    "read_row",
    "training_mistake",
    "unknown_form",
    "unused_keys",
]
