"""Conversations as one text each: by the tokenizer's chat template, a built-in one or a Jinja file.

Renders as transformers' `apply_chat_template` does, without importing it. Which characters train is found in
`spans.py`, tokens are made in `tokenise.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from pharos.data.formats import Conversation, Turn
from pharos.data.jinja import GENERATION_BEGINS, GENERATION_ENDS, compile_template, marks_generations
from pharos.errors import BaseModelError, DataError, UserError
from pharos.spec.rules import BUILTIN_TEMPLATES

TOKENIZER = "tokenizer"
FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A Jinja chat template with the tokens it may name (bos_token, eos_token, ...).

    name: tokenizer, the name of a built-in one, or the path of a file.
    """

    name: str
    source: str
    special_tokens: Mapping[str, str]

    @property
    def title(self) -> str:
        """As messages call it."""
        return "the tokenizer's chat template" if self.name == TOKENIZER else f"the template {self.name}"

    @property
    def writes_the_date(self) -> bool:
        return "strftime_now" in self.source

    @property
    def marks_generations(self) -> bool:
        """Whether it says itself, by {% generation %}, what the assistant wrote."""
        return marks_generations(self.source)

    @property
    def ends_in_place(self) -> bool:
        """Whether a model is to end an answer where another speaker's marker stands: Baichuan2's eos between turns."""
        return self.name == "baichuan2"

    def render(
        self,
        turns: Sequence[Turn],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        edges: tuple[str, str] = ("", ""),
    ) -> str:
        """The text of some turns. Raises DataError with the template's own words where it refuses them.

        edges: what is written before and after each of the template's generation blocks.
        """
        try:
            return compile_template(self.source).render(
                messages=[turn.message() for turn in turns],
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **{GENERATION_BEGINS: edges[0], GENERATION_ENDS: edges[1]},
                **self.special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise DataError(f"{self.title} refuses this row: {error}") from error


def choose_template(
    kind: str,
    *,
    root: Path,
    directory: Path,
    special_tokens: Mapping[str, str],
    adds_bos: bool = False,
) -> Template:
    """The template that data.template asks for.

    root: of the sweep file, from where a path leads. directory: the tokenizer's. adds_bos: whether this tokenizer
    begins every text with its bos token; then a built-in template does so too. Raises DataError if the tokenizer's own
    or a file is asked for and there is none, or the file is malformed; BaseModelError if the tokenizer's own is.
    """
    if kind in ("auto", TOKENIZER):
        source = read_chat_template(directory)
        if source is not None:
            return _compiled(TOKENIZER, source, special_tokens, BaseModelError)
        if kind == TOKENIZER:
            raise DataError(
                f"data.template=tokenizer, but the tokenizer in {directory} has no chat template "
                "(chat_template.jinja, or chat_template in tokenizer_config.json). Use data.template=plain or auto, or "
                f"another that is built in: {', '.join(BUILTIN_TEMPLATES)}."
            )
        kind = "plain"
    if kind not in BUILTIN_TEMPLATES:
        return _compiled(kind, _read_file(kind, root / Path(kind).expanduser()), special_tokens, DataError)
    source = (FOLDER / f"{kind}.jinja").read_text(encoding="utf-8")
    if adds_bos and "bos_token" not in source:
        source = "{{ bos_token }}" + source
    return _compiled(kind, source, special_tokens, DataError)


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


def prompt_and_reference(template: Template, conversation: Conversation) -> tuple[str, str]:
    """What a model is given to write the last assistant turn, and what that turn says."""
    turns = conversation.turns
    last = max(index for index, turn in enumerate(turns) if turn.role == "assistant")
    prompt = template.render(turns[:last], tools=conversation.tools, add_generation_prompt=True)
    return prompt, turns[last].content


def _compiled(name: str, source: str, special_tokens: Mapping[str, str], error_kind: type[UserError]) -> Template:
    template = Template(name=name, source=source, special_tokens=special_tokens)
    try:
        compile_template(source)
    except jinja2.TemplateSyntaxError as error:
        where = template.title if name == TOKENIZER else f"data.template={name}: the file"
        raise error_kind(
            f"{where} is malformed: line {error.lineno}: {error.message}. Correct it, or use data.template=plain."
        ) from error
    return template


def _read_file(kind: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"data.template={kind}: {file} is not there. Paths are relative to the sweep file; built in are "
            f"{', '.join(BUILTIN_TEMPLATES)}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"data.template={kind}: {file} cannot be read: {reason}.") from error
