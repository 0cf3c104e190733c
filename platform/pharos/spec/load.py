"""From a sweep file and `--set` overrides to a checked `SweepSpec`, or to one error that lists every mistake.

The order: YAML with places (`positions.py`), overrides, the schema (`model.py`, `explain.py`), domains (`space.py`),
rules about several fields (`rules.py`). Later steps run over what earlier ones left
good, so all mistakes come together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pharos.errors import SpecError
from pharos.spec.explain import Fault, empty_section, schema_faults
from pharos.spec.fields import nearest
from pharos.spec.model import SweepSpec
from pharos.spec.positions import Document, KeyPath, Mistake, Place, read_yaml, shorten
from pharos.spec.rules import spec_problems
from pharos.spec.space import domain_problem

MAX_FILE_BYTES = 1_000_000
"""A sweep is some kilobytes; a file of weights given by mistake must not be read whole."""

SPACE: KeyPath = ("search", "space")
_KEY = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)*)=")


def load_spec(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read and check the sweep file at `path`, with `key=value` overrides laid over it, the last one winning.

    Raises SpecError with every mistake, one a line, in the order of the file and then of the overrides.
    """
    return _spec_of(*_read(path, overrides))


def spec_of_text(text: str, *, where: str, overrides: Sequence[str] = ()) -> SweepSpec:
    """The spec that a text of the program's own makes with overrides; mistakes of the text are said to be at `where`.

    Raises SpecError as `load_spec` does.
    """
    place = Place(location=where, order=(0, 0))
    return _spec_of(*_laid_over(read_yaml(text, lambda _line: place), overrides))


def written_places(path: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Where each field of a spec was written, by its dotted key: `sweep.yaml:7`, or the override. For `located`."""
    document, _ = _read(path, overrides)
    return {".".join(map(str, key)): place.location for key, place in document.places.items()}


def located(message: str, places: Mapping[str, str]) -> str:
    """The message with the place in front of each line that begins with `key=`, where that key has a place.

    What is wrong with a value may show only when files are opened, in a room that does not know where it was written.
    """
    lines = []
    for line in message.splitlines():
        key = _KEY.match(line)
        place = places.get(key[1]) if key else None
        lines.append(line if place is None else f"{place}: {line}")
    return "\n".join(lines)


def _read(path: Path, overrides: Sequence[str]) -> tuple[Document, list[Mistake]]:
    """The file with the overrides laid over it. Raises SpecError where it holds no fields."""
    document = read_yaml(_read_text(path), partial(_file_place, path))
    if document.value is None and document.mistakes:
        raise SpecError(_listed(document.mistakes))
    if document.value is None:
        raise SpecError(f"{path}: the file is empty. A sweep needs at least name, base and data.")
    if not isinstance(document.value, dict):
        raise SpecError(
            f"{document.place(()).location}: this is not a sweep. Write fields with values, as in `name: my-sweep`."
        )
    return _laid_over(document, overrides)


def _laid_over(document: Document, overrides: Sequence[str]) -> tuple[Document, list[Mistake]]:
    mistakes = list(document.mistakes)
    for index, override in enumerate(overrides):
        document, found = _with_override(document, override, index)
        mistakes += found
    return document, mistakes


def _spec_of(document: Document, mistakes: list[Mistake]) -> SweepSpec:
    """The checked spec. Raises SpecError with the mistakes of reading and of checking together."""
    spec, found = _checked(document)
    if spec is None or mistakes or found:
        raise SpecError(_listed([*mistakes, *found]))
    return spec


def _listed(mistakes: Sequence[Mistake]) -> str:
    return "\n".join(str(mistake) for mistake in sorted(mistakes))


def _file_place(path: Path, line: int) -> Place:
    return Place(location=f"{path}:{line}", order=(0, line))


def _read_text(path: Path) -> str:
    if path.is_dir():
        files = ", ".join(sorted(file.name for file in path.glob("*.y*ml"))[:5])
        raise SpecError(f"{path} is a directory. Name a sweep file{f' in it: {files}' if files else '.'}")
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except FileNotFoundError:
        guess = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        remedy = f"Did you mean {path.parent / guess}?" if guess else "Give the path of a sweep file."
        raise SpecError(f"{path} is not there. {remedy}") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
    if size > MAX_FILE_BYTES:
        raise SpecError(f"{path} has {size} bytes; a sweep file has some thousands. Is it another file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8. Save the file as UTF-8 text."
        raise SpecError(f"{path}:{line}: {message}") from error


def _with_override(document: Document, override: str, index: int) -> tuple[Document, list[Mistake]]:
    """The document with `key=value` laid over it; unchanged, with the mistakes, where that cannot be done."""
    place = Place(location=f"--set {shorten(override)}", order=(1, index))
    key, equals, text = override.partition("=")
    path = _override_path(key.strip())
    if not equals or not all(path):
        return document, [place.says("write key=value, as in --set optim.learning_rate=1e-4")]
    given = read_yaml(text, lambda _line: place)
    if given.mistakes:
        return document, given.mistakes
    value = deepcopy(document.value)
    places = {old: where for old, where in document.places.items() if old[: len(path)] != path}
    places |= {path + inner: where for inner, where in given.places.items()}
    section = value
    for depth, name in enumerate(path[:-1], start=1):
        if section.get(name) is None:  # `search: null` says "no search"; a field of it given here says otherwise
            section[name] = {}
            inner_text = f"{{{'.'.join(map(str, path[depth:]))}: {given.text(())}}}"
            places[path[:depth]] = replace(place, text=shorten(inner_text))
        section = section[name]
        if not isinstance(section, dict):
            outer = ".".join(map(str, path[:depth]))
            return document, [place.says(f"{outer}={document.text(path[:depth])} is not a section and has no fields.")]
    section[path[-1]] = given.value
    return Document(value=value, places=places), []


def _override_path(key: str) -> KeyPath:
    prefix = ".".join(map(str, SPACE)) + "."
    if key.startswith(prefix):  # fields of the space have dotted names of their own
        return (*SPACE, key.removeprefix(prefix))
    return tuple(key.split("."))


def _checked(document: Document) -> tuple[SweepSpec | None, list[Mistake]]:
    """The spec, and what is wrong with it; after a mistake the spec serves no use but to have been checked."""
    faults = _search_faults(document)
    value = _without(document.value, faults)
    spec: SweepSpec | None
    try:
        spec = SweepSpec.model_validate(value)
    except ValidationError as error:
        refused = schema_faults(error.errors(include_url=False), document)
        faults = [*faults, *refused]
        spec = _remainder(_without(value, refused))
    mistakes = [document.place(fault.path).says(fault.message) for fault in faults]
    if spec is None:
        return None, mistakes
    bad = [fault.path for fault in faults]
    for problem in spec_problems(spec):
        paths = [_override_path(key) for key in problem.keys]
        if not any(_overlap(path, other) for path in paths for other in bad):
            written = next((path for path in paths if path in document.places), paths[0])
            mistakes.append(document.place(written).says(problem.message))
    return spec, mistakes


def _search_faults(document: Document) -> list[Fault]:
    search = document.value.get("search")
    if "search" in document.value and search is None and not document.text(("search",)):
        # `search: null` says "no search". A heading with nothing below it is more likely to have lost its lines.
        return [Fault(path=("search",), message=empty_section("search"))]
    space = search.get("space") if isinstance(search, dict) else None
    faults = []
    for key, domain in space.items() if isinstance(space, dict) else ():
        problem = domain_problem(key, domain)
        if problem:
            path = (*SPACE, key)
            text = document.text(path) or "null"
            faults.append(Fault(path=path, message=f"{'.'.join(map(str, path))}={text} {problem}"))
    return faults


def _without(value: dict[str, Any], faults: Sequence[Fault]) -> dict[str, Any]:
    """A copy whose faulty values are gone, or, where the schema needs one, replaced by a harmless one."""
    harmless: dict[KeyPath, Any] = {
        ("name",): "sweep",
        ("base",): "base",
        ("data",): {"train": "train"},
        ("data", "train"): "train",
        SPACE: {"lora.r": {"choice": [1, 2]}},
    }
    value = deepcopy(value)
    for fault in faults:
        section: Any = value
        for name in fault.path[:-1]:
            section = section[name]
        if fault.path in harmless:
            section[fault.path[-1]] = harmless[fault.path]
        elif fault.path[:-1] == SPACE:
            section[fault.path[-1]] = {"choice": [0, 1]}
        else:
            section.pop(fault.path[-1], None)
    return value


def _remainder(value: dict[str, Any]) -> SweepSpec | None:
    try:
        return SweepSpec.model_validate(value)
    except ValidationError:
        return None


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
