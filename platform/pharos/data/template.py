"""Conversations as one text each, by the tokenizer's chat template or a plain one, and which of its characters train.

Renders as transformers' `apply_chat_template` does, without importing it. Tokens are made in `tokenise.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pharos.data.formats import Conversation, Turn
from pharos.errors import BaseModelError, DataError

# For bases without a chat template: contents on lines of their own, each answer followed by the end-of-text token.
PLAIN = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n' }}{% endif %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
)

Span = tuple[int, int]
"""Characters from the first, up to and without the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A Jinja chat template with the tokens it may name (bos_token, eos_token, ...)."""

    name: Literal["tokenizer", "plain"]
    source: str
    special_tokens: Mapping[str, str]

    @property
    def writes_the_date(self) -> bool:
        return "strftime_now" in self.source

    def render(
        self,
        turns: Sequence[Turn],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The text of some turns. Raises DataError with the template's own words where it refuses them."""
        messages = [turn.message() for turn in turns]
        try:
            return _compile(self.source).render(
                messages=messages,
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise DataError(f"the tokenizer's chat template refuses this row: {error}") from error


def choose_template(
    kind: Literal["auto", "tokenizer", "plain"],
    *,
    directory: Path,
    special_tokens: Mapping[str, str],
    adds_bos: bool = False,
) -> Template:
    """The template that data.template asks for, from the tokenizer's directory.

    adds_bos: whether this tokenizer begins every text with its bos token; then the plain template does so too.
    Raises DataError if the tokenizer's own is asked for and there is none, BaseModelError if it is malformed.
    """
    source = None if kind == "plain" else read_chat_template(directory)
    if source is not None:
        _compile(source)
        return Template(name="tokenizer", source=source, special_tokens=special_tokens)
    if kind == "tokenizer":
        raise DataError(
            f"data.template=tokenizer, but the tokenizer in {directory} has no chat template "
            "(chat_template.jinja, or chat_template in tokenizer_config.json). Use data.template=plain or auto."
        )
    source = ("{{ bos_token }}" if adds_bos else "") + PLAIN
    return Template(name="plain", source=source, special_tokens=special_tokens)


def read_chat_template(directory: Path) -> str | None:
    """The chat template of a tokenizer's directory, of several the one named default; none where there is none."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config_file = directory / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    written = config.get("chat_template")
    if not isinstance(written, list):
        return written
    named = {template["name"]: template["template"] for template in written}
    if "default" not in named:
        raise BaseModelError(
            f"{config_file}: chat_template holds {', '.join(named)} but none named default. "
            "Name one of them default, or use data.template=plain."
        )
    return named["default"]


def trained_spans(template: Template, conversation: Conversation) -> tuple[str, list[Span]]:
    """The text of a conversation, and the characters of every assistant turn with its end-of-turn marker.

    A turn begins where the generation prompt before it ends. It ends where the text of the turns up to it ends, without
    the whitespace that follows the marker. Raises DataError if these are not beginnings of the whole text.
    """
    turns, tools = conversation.turns, conversation.tools
    text = template.render(turns, tools=tools)
    spans = []
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        before = template.render(turns[:index], add_generation_prompt=True, tools=tools)
        up_to = text if index + 1 == len(turns) else template.render(turns[: index + 1], tools=tools)
        if not (up_to.startswith(before) and text.startswith(up_to)):
            remedy = "Use data.template=plain" + (", or rows of one question and one answer" if len(turns) > 2 else "")
            part = "up to" if up_to.startswith(before) else "before"
            raise DataError(
                f"the tokenizer's chat template is not prefix-stable: what it writes for the turns {part} turn {index} "
                f"is not the beginning of what it writes for {'all' if part == 'up to' else 'that turn too'}, so what "
                f"to train on cannot be found. {remedy}."
            )
        spans.append((len(before), len(up_to.rstrip())))
    return text, spans


def prompt_and_reference(template: Template, conversation: Conversation) -> tuple[str, str]:
    """What a model is given to write the last assistant turn, and what that turn says."""
    turns = conversation.turns
    last = max(index for index, turn in enumerate(turns) if turn.role == "assistant")
    prompt = template.render(turns[:last], add_generation_prompt=True, tools=conversation.tools)
    return prompt, turns[last].content


class _GenerationTag(Extension):
    """{% generation %} marks the assistant's words in some templates; here it only has to let them through."""

    tags = {"generation"}  # noqa: RUF012 - the name and type that jinja2 asks for

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise BaseModelError(
            f"the tokenizer's chat template is malformed: line {error.lineno}: {error.message}. "
            "Correct it, or use data.template=plain."
        ) from error


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: jinja2's own escapes HTML. Templates pass the options by place too."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
