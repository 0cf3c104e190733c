"""Jinja as transformers runs it for chat templates: a sandbox, its filters and functions, and `{% generation %}`.

Nothing is known here of rows or tokens.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

GENERATION_BEGINS, GENERATION_ENDS = "generation_begins", "generation_ends"
"""Variables whose text is written where a generation block begins and ends; where they are not given, nothing is."""


@lru_cache(maxsize=16)
def compile_template(source: str) -> jinja2.Template:
    """A template ready to render. Raises jinja2.TemplateSyntaxError, with the line, if it is malformed."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["namespace"] = _Namespace
    return environment.from_string(source)


@lru_cache(maxsize=16)
def marks_generations(source: str) -> bool:
    """Whether a template says itself, by generation blocks, what the assistant wrote."""
    parsed = compile_template(source).environment.parse(source)
    return any(name.name == GENERATION_BEGINS for name in parsed.find_all(nodes.Name))


class _GenerationTag(Extension):
    """`{% generation %}` holds what the assistant wrote: its edges are written as text where the caller asks for it.

    Transformers counts the characters written so far instead, which is wrong inside a macro or a captured block.
    """

    tags = {"generation"}  # noqa: RUF012 - the name and type that jinja2 asks for

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begins, ends = (
            nodes.Output([nodes.Name(name, "load")], lineno=line) for name in (GENERATION_BEGINS, GENERATION_ENDS)
        )
        return [begins, nodes.Scope(body, lineno=line), ends]


class _Namespace(Namespace):
    """As transformers has it: no underscored names, through which a template could reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _refuse_underscore(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        Namespace.__setitem__(self, name, value)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may hold no name that begins with an underscore, such as {name}")


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
