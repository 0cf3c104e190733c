"""Lists of turns as people write them: role and content, from and value, tool calls, tools; and the order of roles.

Serves every form that holds turns. Mistakes are appended to a list; see `cells.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pharos.data.formats.cells import Cells, hint, is_plain_json, is_unicode, kind_of, nested, one_of, read_text, short
from pharos.data.formats.rows import Role, ToolCall, Turn

# What roles are called in files. A function_call is an assistant's turn that says nothing and calls tools (ShareGPT).
ROLES: Mapping[str, Role | Literal["call"]] = {
    "system": "system",
    "developer": "system",  # OpenAI's name for it with newer models; templates write the one like the other
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
ROLES_TO_USE = {"role": ("system", "user", "assistant", "tool"), "from": ("system", "human", "gpt", "observation")}
CONTENT_OF = {"role": "content", "from": "value"}
TURN_KEYS = {"role", "content", "from", "value", "tool_calls", "function_call", "name", "tool_call_id"}


def read_turns(value: Any, place: str, mistakes: list[str], *, role_key: str = "role") -> list[Turn]:
    """The turns of a list, or of its JSON text. role_key: the key of a turn's role, in messages about its absence."""
    value = nested(value)
    if not isinstance(value, list):
        mistakes.append(f"{place} must be a list of turns, not {kind_of(value)}.")
        return []
    turns: list[Turn] = []
    for index, written in enumerate(value):
        turn = _read_turn(written, f"{place}[{index}]", role_key, mistakes)
        if turn is None:
            continue
        is_call = bool(turn.tool_calls) and not turn.content
        if is_call and turns and turns[-1].role == "assistant":  # words, then calls; or several calls at once
            before = turns[-1]
            turns[-1] = Turn(
                role="assistant", content=before.content, tool_calls=(*before.tool_calls, *turn.tool_calls)
            )
        else:
            turns.append(turn)
    return turns


def with_system(cells: Cells, turns: list[Turn]) -> list[Turn]:
    """The turns after the row's own `system`, if it has one."""
    system = cells.optional_text("system")
    if not system.strip() or (turns and turns[0] == Turn(role="system", content=system)):
        return turns
    if turns and turns[0].role == "system":
        cells.mistakes.append(f"{cells.column('system')} and the first turn both give a system text. Keep one of them.")
    cells.num_inserted = 1
    return [Turn(role="system", content=system), *turns]


def read_tools(cells: Cells) -> tuple[Mapping[str, Any], ...]:
    """The row's `tools`: a list, or its JSON text; a bare function is put into the frame that templates expect."""
    value, place = nested(cells.get("tools")), cells.column("tools")
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    written = [value] if isinstance(value, dict) else value
    if not isinstance(written, list):
        cells.mistakes.append(f"{place} must be a list of tools as JSON schemas, not {kind_of(value)}.")
        return ()
    tools = []
    for index, tool in enumerate(map(nested, written)):
        if not isinstance(tool, dict):
            cells.mistakes.append(f"{place}[{index}] must be an object with name and parameters, not {kind_of(tool)}.")
        elif not is_plain_json(tool):
            cells.mistakes.append(f"{place}[{index}] cannot be written as JSON in UTF-8.")
        else:
            tools.append({"type": "function", "function": tool} if "name" in tool and "function" not in tool else tool)
    return tuple(tools)


def order_mistakes(turns: Sequence[Turn], *, num_inserted: int = 0) -> list[str]:
    """At most one sentence: what comes after the first wrong turn is wrong by it.

    num_inserted: of the first turns, how many do not count, since the row's list of turns begins after them.
    """
    if all(turn.role != "assistant" for turn in turns):
        return ["no turn is the assistant's: there is nothing to train on."]
    before: str | None = None
    for index, turn in enumerate(turns, start=-num_inserted):
        if turn.role == "system":
            if before is not None or index > 0:
                return [f"turn {index} is a system turn; only the first turn may be one."]
            continue
        if turn.role == "tool" and before not in ("assistant", "tool"):
            return [f"turn {index} is a tool's, but no turn of the assistant's, which would call it, comes before it."]
        if turn.role == "user" and before == "tool":
            return [f"turn {index} is the user's and follows a tool's; the assistant must answer the tool first."]
        is_first_answer = turn.role == "assistant" and before is None
        if is_first_answer or (turn.role == before and turn.role != "tool"):
            where = "comes before any user turn" if is_first_answer else f"follows another {turn.role} turn"
            return [f"turn {index} is the {turn.role}'s and {where}; user and assistant must alternate."]
        before = turn.role
    return []


def _read_turn(turn: Any, place: str, role_key: str, mistakes: list[str]) -> Turn | None:
    if not isinstance(turn, dict):
        content_key = CONTENT_OF[role_key]
        mistakes.append(f"{place} must be an object with {role_key} and {content_key}, not {kind_of(turn)}.")
        return None
    role_key = next((key for key in (role_key, "role", "from") if turn.get(key) is not None), role_key)
    content_key = CONTENT_OF[role_key]
    if content_key not in turn:
        content_key = next((key for key in ("content", "value") if key in turn), content_key)
    word = turn.get(role_key)
    role = (ROLES.get(word) or ROLES.get(word.strip().lower())) if isinstance(word, str) else None
    if role is None:
        near = hint(word.lower(), ROLES) if isinstance(word, str) else ""
        mistakes.append(f"{place}.{role_key}={short(word)} is no role. Use {one_of(ROLES_TO_USE[role_key])}.{near}")
        return None
    if role == "call":
        called = _calls(turn.get(content_key), f"{place}.{content_key}", mistakes)
        return Turn(role="assistant", content="", tool_calls=called)
    if role == "user":
        return Turn(role="user", content=read_text(turn, content_key, f"{place}.{content_key}", mistakes))
    calls: tuple[ToolCall, ...] = ()
    if role == "assistant":
        key = next((key for key in ("tool_calls", "function_call") if turn.get(key)), None)
        calls = _calls(turn[key], f"{place}.{key}", mistakes) if key else ()
        if key and content_key not in turn:
            return Turn(role="assistant", content="", tool_calls=calls)
    may_be_blank = bool(calls) or role != "assistant"
    content = read_text(turn, content_key, f"{place}.{content_key}", mistakes, may_be_blank=may_be_blank)
    name, call_id = (_identifier(turn, key, place, mistakes) for key in ("name", "tool_call_id"))
    return Turn(role=role, content=content, tool_calls=calls, name=name, tool_call_id=call_id)


def _calls(value: Any, place: str, mistakes: list[str]) -> tuple[ToolCall, ...]:
    """Tool calls in OpenAI's frame or bare, one or a list of them, or the JSON text of either."""
    value = nested(value)
    written = [value] if isinstance(value, dict) else value
    if not isinstance(written, list) or not written:
        mistakes.append(f"{place} must hold calls, each with name and arguments, not {kind_of(value)}.")
        return ()
    calls = []
    for index, call in enumerate(map(nested, written)):
        where = f"{place}[{index}]" if isinstance(value, list) else place
        function = nested(call.get("function", call)) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            mistakes.append(f"{where} must be an object with the name of a function and its arguments.")
            continue
        arguments = nested(function.get("arguments"))
        arguments = {} if arguments in (None, "") else arguments
        if not isinstance(arguments, dict):
            mistakes.append(f"{where}.arguments must be a JSON object, not {kind_of(arguments)}.")
        elif not is_plain_json([function["name"], arguments, call.get("id")]):
            mistakes.append(f"{where} cannot be written as JSON in UTF-8.")
        else:
            call_id = None if call.get("id") is None else str(call["id"])
            calls.append(ToolCall(name=function["name"], arguments=arguments, id=call_id))
    return tuple(calls)


def _identifier(turn: Mapping[str, Any], key: str, place: str, mistakes: list[str]) -> str | None:
    value = turn.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str) and is_unicode(value):
        return value
    mistakes.append(f"{place}.{key} must be text, not {kind_of(value)}.")
    return None
