"""What a person names as data to evaluate on, as rows for one model: with its tokenizer, in its template.

rows.jsonl, a glob, a directory, a URI, hub:owner/name    all rows of it
builtin:docker-commands                                   its test rows
sweep.yaml:test, sweep.yaml:eval                          a split of the data of a sweep file
quickstart:test, path/to/quickstart:eval                  the same rows as a sweep that has run had them
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pharos.data.held_out import HeldOutRows, first_rows, held_out_rows
from pharos.data.hub import is_hub_id
from pharos.data.prepare import load_prepared, open_prompts, open_split, own_chat_template
from pharos.data.storage import is_uri
from pharos.data.template import read_chat_template
from pharos.errors import DataError, ModelError, UserError
from pharos.handover.references import FoundModel, base_of_sweep, sweep_directory
from pharos.model.base_files import read_config
from pharos.plan.exchange import HeldOut
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths
from pharos.spec.load import load_spec
from pharos.spec.model import DataSpec, SweepSpec
from pharos.store.mirror import fetch_folder, typed_storage
from pharos.track.sweeps import log_of, sweeps_in

SPLIT = re.compile(r"(.+):(eval|test)")
MAX = "data.max_length="
MAX_LENGTH = 1024
"""Tokens a row may have where the model does not say how many it can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a person may ask of the rows. template: as data.template, none is the model's own."""

    template: str | None = None
    max_length: int | None = None
    max_rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRows:
    """Rows and what the sweep that they come from says of answers. asked: whether answers can be generated."""

    shown: str
    held_out: HeldOutRows
    max_new_tokens: int | None = None
    asked: bool = True


def eval_rows(data: str, found: FoundModel, *, storage: Path, wishes: Wishes) -> EvalRows:
    """The rows that `data` names, for a model.

    Raises DataError, SpecError or ModelError for what is not there, is malformed, or was prepared for other models.
    """
    storage, named = storage.absolute(), SPLIT.fullmatch(data)
    if Path(data).suffix in (".yaml", ".yml"):
        raise DataError(f"DATA={data} is a sweep file. Say which rows of it: {data}:test or {data}:eval.")
    if named is None or is_hub_id(data) or is_uri(data) or Path(data).exists():
        return _of_file(data, found, wishes)
    name, split = named[1], cast(HeldOut, named[2])
    if Path(name).suffix in (".yaml", ".yml"):
        return _of_spec(data, Path(name), split, found, wishes)
    directory = sweep_directory(name, storage)
    if directory is None:
        sweeps = sweeps_in(storage)
        near = difflib.get_close_matches(name, sweeps, n=1)
        hint = f"Did you mean {near[0]}:{split}?" if near else f"There is: {', '.join(sweeps) or 'none'}."
        raise DataError(f"DATA={data}: there is no sweep {name} in {typed_storage(storage)}. {hint}")
    return _of_sweep(data, directory, split, found, storage, wishes)


def _of_file(data: str, found: FoundModel, wishes: Wishes) -> EvalRows:
    spec = DataSpec(
        train=data,
        template=_template(found, wishes) or "auto",
        max_length=wishes.max_length or int(read_config(found.model_dir).get("max_position_embeddings") or MAX_LENGTH),
        long_rows="skip",
    )
    try:
        rows = held_out_rows(spec, root=Path.cwd(), tokenizer_dir=found.model_dir, split=None, max_rows=wishes.max_rows)
    except UserError as error:
        said = error.message
        for field, option in (("data.train=", "DATA="), ("data.template=", "--template "), (MAX, "--max-length ")):
            said = said.replace(field, option)
        raise type(error)(said) from error
    return EvalRows(shown=data, held_out=rows, asked=not rows.is_text)


def _of_spec(data: str, path: Path, split: HeldOut, found: FoundModel, wishes: Wishes) -> EvalRows:
    """A split of a sweep file, made anew: also for a model with another tokenizer or template."""
    spec: SweepSpec = load_spec(path)
    limit = spec.data.max_test_rows if split == "test" else spec.data.max_eval_rows
    limits = [count for count in (limit, wishes.max_rows) if count is not None]
    changed = {"template": _template(found, wishes), "max_length": wishes.max_length}
    rows = held_out_rows(
        spec.data.model_copy(update={key: value for key, value in changed.items() if value is not None}),
        root=path.absolute().parent,
        tokenizer_dir=found.model_dir,
        split=split,
        max_rows=min(limits, default=None),
    )
    return EvalRows(shown=data, held_out=rows, max_new_tokens=spec.test.max_new_tokens, asked=not rows.is_text)


def _of_sweep(data: str, directory: Path, split: HeldOut, found: FoundModel, storage: Path, wishes: Wishes) -> EvalRows:
    """The prepared rows of a sweep, token by token those that its own figures were computed on."""
    instead = f"Name the sweep's file instead, as in sweep.yaml:{split}"
    for option, value in (("--template", wishes.template), ("--max-length", wishes.max_length)):
        if value is not None:
            raise DataError(f"{option} {value}: {data} are rows that are prepared already. {instead}.")
    started = Ledger.of(log_of(directory).read()).started
    if started is None:
        raise DataError(f"DATA={data}: the sweep has not begun yet, it has no rows.")
    places = [SweepPaths(place, started.sweep).cache / started.digests["data"] for place in (directory.parent, storage)]
    prepared_dir = next(
        (place for place in places if fetch_folder(place) and (place / "manifest.json").is_file()), None
    )
    if prepared_dir is None:
        raise DataError(f"DATA={data}: its rows should be in {places[0]}, which is not there. {instead}.")
    base_dir = base_of_sweep(directory, storage)
    if base_dir is None or not _same_tokenizer(base_dir, found.model_dir):
        raise ModelError(
            f"{found.shown} has another tokenizer than the sweep {started.sweep}, whose rows were prepared with its "
            f"own. {instead}: its rows are read anew."
        )
    theirs = own_chat_template(prepared_dir) or read_chat_template(base_dir)
    is_own = theirs == _own_template(found)
    note = f"rows are in the template of the sweep {started.sweep}, which is not the model's own"
    held_out = _prepared_rows(data, prepared_dir, split, wishes.max_rows, () if is_own else (note,))
    return EvalRows(
        shown=data,
        held_out=held_out,
        max_new_tokens=started.spec.get("test", {}).get("max_new_tokens"),
        asked=bool(held_out.prompts) and not held_out.is_text,
    )


def _prepared_rows(
    data: str, directory: Path, split: HeldOut, max_rows: int | None, notes: tuple[str, ...]
) -> HeldOutRows:
    prepared, rows = load_prepared(directory), open_split(directory, split)
    # Rows that an earlier version prepared have prompts for test alone.
    has_prompts = (directory / f"{split}_prompts.arrow").is_file()
    prompts, references = open_prompts(directory, split) if has_prompts else ([], [])
    count = len(rows) if max_rows is None else min(len(rows), max_rows)
    return HeldOutRows(
        rows=first_rows(rows, count),
        prompts=prompts[:count],
        references=references[:count],
        places=[f"{data}[{index}]" for index in range(count)],
        digest=prepared.digest,
        stop_ids=prepared.stop_ids,
        notes=notes,
        is_text=prepared.facts.format == "text",
    )


def _template(found: FoundModel, wishes: Wishes) -> str | None:
    """As data.template: what was asked for, or what the model was trained with; none where it brings none."""
    if wishes.template is not None:
        return wishes.template
    if found.chat_template is not None:
        return str(found.chat_template)
    return None if read_chat_template(found.model_dir) is None else "tokenizer"


def _own_template(found: FoundModel) -> str | None:
    """The text of the template that the model was trained with."""
    if found.chat_template is not None:
        return found.chat_template.read_text(encoding="utf-8")
    return read_chat_template(found.model_dir)


def _same_tokenizer(one: Path, other: Path) -> bool:
    files = [directory / "tokenizer.json" for directory in (one, other)]
    return all(file.is_file() for file in files) and files[0].read_bytes() == files[1].read_bytes()
