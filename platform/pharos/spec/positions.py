"""YAML to plain values, each with the place where it was written. YAML 1.2's core schema, read with PyYAML's parser.

PyYAML follows YAML 1.1, where `1e-5` is text and `no` is false; only its scanner and composer are used here. What a
value means to a sweep does not belong here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
"""Where a value lies within the file: ("search", "space", "lora.r", "ordered", 0)."""

MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Far above any sweep; a few lines of aliases within aliases would otherwise unfold to billions of values."""
MAX_TEXT = 60
"""Characters of a value that a message repeats."""

_TAG = "tag:yaml.org,2002:"
# The core schema of YAML 1.2.2, section 10.3.2.
_CORE_SCHEMA = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value was written. location: as shown, `sweep.yaml:7` or `--set lora.r=8`; order: sorts places."""

    location: str
    order: tuple[int, int] = (0, 0)
    text: str = ""

    def says(self, message: str) -> Mistake:
        return Mistake(order=self.order, location=self.location, message=message)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mistake:
    """One thing that the user has to change. Sorts by place."""

    order: tuple[int, int]
    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A YAML text as plain values.

    places: of every value by its path; the whole document has the path ().
    mistakes: what is wrong with it as YAML. One that ends the reading leaves `value` none and `places` with () alone.
    """

    value: Any = None
    places: dict[KeyPath, Place]
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """The place of the value at `path`, or of the nearest thing around it that was written."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def text(self, path: KeyPath) -> str:
        """The value at `path` as it was written: 2e-4, not 0.0002."""
        return self.places[path].text if path in self.places else ""


def read_yaml(text: str, locate: Callable[[int], Place]) -> Document:
    """Read one YAML document. `locate` makes a place from a line number, from 1."""
    places: dict[KeyPath, Place] = {(): locate(1)}
    try:
        node = _Composer(text).get_single_node()
        if node is None:
            return Document(places=places)
        reader = _Reader(locate, places)
        value = reader.read(node, (), node.start_mark.line + 1)
    except yaml.MarkedYAMLError as error:
        return Document(places={(): locate(1)}, mistakes=[_syntax_mistake(error, locate)])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character U+{ord(text[error.position]):04X} cannot stand in YAML. Is this a text file?"
        return Document(places={(): locate(1)}, mistakes=[locate(line).says(message)])
    return Document(value=value, places=places, mistakes=reader.mistakes)


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """`text` on one line, cut with an ellipsis where it is longer than `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


class _Composer(yaml.SafeLoader):
    """PyYAML's scanner, parser and composer with the scalars of YAML 1.2, and a bound on nesting."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - filled below, once; PyYAML declares it so
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels deep", problem_mark=self.get_mark())
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _kind, _pattern in _CORE_SCHEMA.items():
    _Composer.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern})\\Z"), None)


class _Reader:
    """One walk over the composed nodes; holds what it has found so far."""

    def __init__(self, locate: Callable[[int], Place], places: dict[KeyPath, Place]) -> None:
        self.locate = locate
        self.places = places
        self.mistakes: list[Mistake] = []
        self.num_values = 0
        self.open_nodes: set[int] = set()

    def read(self, node: yaml.Node, path: KeyPath, line: int) -> Any:
        """The value of `node`; `line` is where its key stands, or itself where it has none."""
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            problem = f"its aliases unfold to more than {MAX_VALUES} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            quote = '"' if node.style in ("'", '"') else ""
            self._place(path, line, f"{quote}{node.value}{quote}")
            return self._scalar(node)
        with self._inside(node):
            value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            raise self._unknown_tag(node)
        self._place(path, line, self._flow_text(value, path))
        return value

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        if id(node) in self.open_nodes:
            raise yaml.MarkedYAMLError(problem="an alias refers to what it is part of", problem_mark=node.start_mark)
        self.open_nodes.add(id(node))
        yield
        self.open_nodes.remove(id(node))

    def _place(self, path: KeyPath, line: int, text: str) -> None:
        self.places[path] = replace(self.locate(line), text=shorten(text))

    def _flow_text(self, value: Any, path: KeyPath) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {self.places[*path, key].text}" for key in value) + "}"
        return "[" + ", ".join(self.places[*path, index].text for index in range(len(value))) + "]"

    def _sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        return [self.read(item, (*path, index), _line(item)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        pairs = self._pairs(node)
        return {key: self.read(value, (*path, key), line) for key, (line, value) in pairs.items()}

    def _pairs(self, node: yaml.Node) -> dict[str, tuple[int, yaml.Node]]:
        """Key -> (its line, its value node) of a mapping; keys of its own go before those merged with <<."""
        own: dict[str, tuple[int, yaml.Node]] = {}
        merged: dict[str, tuple[int, yaml.Node]] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self._add_mistake(key_node, "a list or a mapping cannot be a key: write a name.")
            elif key == "<<" and key_node.style is None:
                merged = self._merged(value_node) | merged
            elif key in own:
                self._add_mistake(key_node, f"{key} is given twice, in line {own[key][0]} and here. Remove one.")
            else:
                own[key] = (_line(key_node), value_node)
        return merged | own

    def _merged(self, node: yaml.Node) -> dict[str, tuple[int, yaml.Node]]:
        """What `<<: *anchor` or `<<: [*one, *other]` stands for; the first source of a key counts."""
        pairs: dict[str, tuple[int, yaml.Node]] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                with self._inside(source):
                    pairs = self._pairs(source) | pairs
            else:
                self._add_mistake(source, "<< merges mappings: give it an alias of one, as in <<: *name")
        return pairs

    def _add_mistake(self, node: yaml.Node, message: str) -> None:
        mistake = self.locate(_line(node)).says(message)
        if mistake not in self.mistakes:  # a merged mapping is walked where it stands and where it is merged
            self.mistakes.append(mistake)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(_TAG)
        text: str = node.value
        try:
            if kind == "str":
                return text
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if kind == "float":
                return float(text.replace(".inf", "inf").replace(".nan", "nan")) if "." in text else float(text)
        except (ValueError, KeyError):
            problem = f"{shorten(text)} cannot be read as {kind}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None
        raise self._unknown_tag(node)

    def _unknown_tag(self, node: yaml.Node) -> yaml.MarkedYAMLError:
        tag = node.tag.replace(_TAG, "!!")
        return yaml.MarkedYAMLError(problem=f"the tag {tag} means nothing here", problem_mark=node.start_mark)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_mistake(error: yaml.MarkedYAMLError, locate: Callable[[int], Place]) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = error.problem or error.context or "it cannot be read"
    place = locate(line)
    location = f"{place.location}:{column}" if mark and place.location.endswith(f":{line}") else place.location
    message = f"this is not valid YAML: {problem}.{_remedy(problem)}"
    return Mistake(order=place.order, location=location, message=message)


def _remedy(problem: str) -> str:
    remedies = {
        "'\\t'": " Indent with spaces: YAML allows no tabs.",
        "mapping values are not allowed": " Put a value that holds a colon in quotes, and check the indentation.",
        "could not find expected ':'": " Write `key: value`, with a space after the colon.",
        "expected <block end>": " Keys of one section must begin in the same column.",
        "expected ',' or": " A bracket is not closed, or a comma is missing.",
        "but found another document": " One file holds one sweep: remove the line ---.",
        "undefined alias": " Name it with &name before using it, or put text that begins with * in quotes.",
        "the tag": " Write a plain value.",
        "end of stream": " A bracket or a quote is not closed.",
        "cannot start any token": " Put this text in quotes.",
    }
    return next((remedy for sign, remedy in remedies.items() if sign in problem), "")
