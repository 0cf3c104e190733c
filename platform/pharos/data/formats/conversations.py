"""The forms that train today: turns, questions with answers in their many spellings, and plain text.

Each reader takes the cells of a row and gives its turns; mistakes collect in the cells.
"""

from __future__ import annotations

from typing import Any

from pharos.data.formats.cells import Cells, kind_of, nested, text_at
from pharos.data.formats.form import Format, TurnsReader
from pharos.data.formats.rows import Conversation, Origin, Role, Text, Turn
from pharos.data.formats.turns import CONTENT_OF, order_mistakes, read_tools, read_turns, with_system


def pair(cells: Cells, user_key: str, assistant_key: str) -> list[Turn]:
    """One question and its answer; either may be a list of turns, as in TRL's conversational rows."""
    asked = side(cells, user_key, "user")
    return with_system(cells, [*asked, *side(cells, assistant_key, "assistant")])


def side(cells: Cells, key: str, role: Role) -> list[Turn]:
    """What one side of a pair says: a text, or turns where it is a list of them, or one of them."""
    value = cells.get(key)
    written = nested(value)
    if isinstance(written, str) or written is None:
        return [Turn(role=role, content=cells.text(key))]
    turns = [written] if isinstance(written, dict) else written
    if isinstance(turns, list) and turns and all(_is_turn(turn, is_text=isinstance(value, str)) for turn in turns):
        return read_turns(turns, cells.column(key), cells.mistakes)
    return [Turn(role=role, content=cells.text(key))]


def _is_turn(value: Any, *, is_text: bool) -> bool:
    """Whether a value is meant as a turn. is_text: it stood in a text, which may speak of {"from": "Paris"} too."""
    if not isinstance(value, dict):
        return False
    return any(key in value and (not is_text or content in value) for key, content in CONTENT_OF.items())


def messages(cells: Cells) -> list[Turn]:
    return with_system(cells, read_turns(cells.get("messages"), cells.column("messages"), cells.mistakes))


def sharegpt(cells: Cells) -> list[Turn]:
    place = cells.column("conversations")
    return with_system(cells, read_turns(cells.get("conversations"), place, cells.mistakes, role_key="from"))


def alpaca(cells: Cells) -> list[Turn]:
    return [*alpaca_prompt(cells), Turn(role="assistant", content=cells.text("output"))]


def alpaca_prompt(cells: Cells) -> list[Turn]:
    """System and history, then the instruction, a blank line and the input, of which one may be empty."""
    given = cells.optional_text("input")
    if given.strip():
        asked = cells.optional_text("instruction")
        asked = f"{asked}\n\n{given}" if asked.strip() else given
    else:
        asked = cells.text("instruction")
    return with_system(cells, [*_history(cells), Turn(role="user", content=asked)])


def paddlenlp(cells: Cells) -> list[Turn]:
    asked, answered = texts(cells, "src"), texts(cells, "tgt")
    if len(asked) != len(answered) and not cells.mistakes:
        cells.mistakes.append(
            f"{cells.column('src')} has {len(asked)} turns and {cells.column('tgt')} has {len(answered)}: "
            "each turn of src is answered by the one of tgt at its place."
        )
    return interleaved(cells, asked, answered)


def interleaved(cells: Cells, asked: list[str], answered: list[str]) -> list[Turn]:
    """PaddleNLP's system text, questions and answers in the order in which they were said."""
    turns = [] if (system := _context_system(cells)) is None else [Turn(role="system", content=system)]
    for index, question in enumerate(asked):
        turns.append(Turn(role="user", content=question))
        turns += [Turn(role="assistant", content=answer) for answer in answered[index : index + 1]]
    return turns


def texts(cells: Cells, key: str) -> list[str]:
    """One text, or a list of texts, none of them empty."""
    value, place = cells.get(key), cells.column(key)
    if not isinstance(value, list):
        return [cells.text(key)]
    read = []
    for index, text in enumerate(value):
        read.append(text_at(text, f"{place}[{index}]", cells.mistakes))
    return read


def _history(cells: Cells) -> list[Turn]:
    if cells.get("history") in (None, ""):
        return []
    turns = []
    exchanges = cells.list_of("history", "questions with their answers, [[question, answer], ...]")
    for index, exchange in enumerate(exchanges):
        place = f"{cells.column('history')}[{index}]"
        if not isinstance(exchange, list) or len(exchange) != 2:
            what = f"a list of {len(exchange)}" if isinstance(exchange, list) else kind_of(exchange)
            cells.mistakes.append(f"{place} must be [question, answer], not {what}.")
            continue
        turns.append(Turn(role="user", content=text_at(exchange[0], f"{place}[0]", cells.mistakes)))
        turns.append(Turn(role="assistant", content=text_at(exchange[1], f"{place}[1]", cells.mistakes)))
    return turns


def _context_system(cells: Cells) -> str | None:
    context = nested(cells.get("context"))
    if context in (None, "", {}):
        return None
    if not isinstance(context, dict):
        cells.mistakes.append(f"{cells.column('context')} must be an object with system, not {kind_of(context)}.")
        return None
    place = f"{cells.column('context')}.system"
    system = text_at(context.get("system"), place, cells.mistakes, may_be_blank=True)
    return system if system.strip() else None


def _conversation(read: TurnsReader) -> Any:
    def read_conversation(cells: Cells, origin: Origin) -> Conversation:
        turns, tools = read(cells), read_tools(cells) if cells.get("tools") else ()
        if not cells.mistakes:
            cells.mistakes += order_mistakes(turns, num_inserted=cells.num_inserted)
        return Conversation(turns=tuple(turns), origin=origin, tools=tools)

    return read_conversation


def _pair_form(user_key: str, assistant_key: str, name: str | None = None) -> Format:
    return Format(
        name=name or f"{user_key}/{assistant_key}",
        kind=Conversation,
        keys=(user_key, assistant_key),
        read=_conversation(lambda cells: pair(cells, user_key, assistant_key)),
        optional_keys=("system", "tools"),
        turn_keys=(user_key, assistant_key),
    )


CONVERSATIONS = (
    Format(
        name="messages",
        kind=Conversation,
        keys=("messages",),
        read=_conversation(messages),
        optional_keys=("system", "tools"),
        turn_keys=("messages",),
    ),
    Format(
        name="sharegpt",
        kind=Conversation,
        keys=("conversations",),
        read=_conversation(sharegpt),
        optional_keys=("system", "tools"),
        turn_keys=("conversations",),
        other_keys={"messages": "conversations"},
    ),
    _pair_form("prompt", "completion"),
    _pair_form("question", "answer"),
    Format(
        name="alpaca",
        kind=Conversation,
        keys=("instruction", "output"),
        read=_conversation(alpaca),
        optional_keys=("input", "system", "history", "tools"),
        other_keys={"prompt": "instruction", "query": "input", "response": "output"},
    ),
    Format(
        name="paddlenlp",
        kind=Conversation,
        keys=("src", "tgt"),
        read=_conversation(paddlenlp),
        optional_keys=("context",),
    ),
    _pair_form("content", "summary", "adgen"),
    _pair_form("input", "output"),
)

TEXT = Format(
    name="text",
    kind=Text,
    keys=("text",),
    read=lambda cells, origin: Text(text=cells.text("text"), origin=origin),
)
