"""Rows as they lie on disk, ready to train on: tokenised once per sweep, named by a digest of all that made them.

`prepare` writes a directory, or finds it; rows stream through and are never all in memory. No order, no batches here.
What they are made from is in `recipe.py`, what is told of them in `streamed.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pharos.data.ledger import Ledger
from pharos.data.load import Notes, chunks_of
from pharos.data.packing import pack
from pharos.data.parts import Task
from pharos.data.recipe import FORMAT_VERSION, Recipe, recipe_of
from pharos.data.sources import key_of
from pharos.data.split import HELD_OUT, SPLITS
from pharos.data.store import PromptFile, RowSpill, TokenRows, open_prompts, open_split, write_ordered_rows, write_rows
from pharos.data.streamed import SKIPPED, Streamed, all_warnings, epoch_of, facts_of, new_streamed, refuse_unusable
from pharos.data.template import TOKENIZER
from pharos.data.workers import make_parts
from pharos.folders import write_folder
from pharos.plan.exchange import HeldOut, Split
from pharos.plan.facts import DataFacts
from pharos.spec.model import DataSpec
from pharos.store.mirror import fetch_folder

__all__ = ["PreparedData", "TokenRows", "load_prepared", "open_prompts", "open_split", "prepare"]

MANIFEST = "manifest.json"
CHAT_TEMPLATE = "chat_template.jinja"
TEXT_FORM = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """A directory of prepared rows. pad_id fills batches; generation ends at any of stop_ids."""

    directory: Path
    digest: str
    facts: DataFacts
    pad_id: int
    stop_ids: tuple[int, ...]
    warnings: tuple[str, ...]


def prepare(spec: DataSpec, *, root: Path, tokenizer_dir: Path, tokenizer_digest: str, cache_dir: Path) -> PreparedData:
    """The prepared rows under `cache_dir`, made on the first call and found on the next.

    `root` is the directory of the spec file. Raises DataError for rows that are malformed, too long where
    data.long_rows=error, or not there; BaseModelError for a tokenizer that cannot be used.
    """
    recipe = recipe_of(spec, root=root, tokenizer_dir=tokenizer_dir, tokenizer_digest=tokenizer_digest)
    directory = cache_dir / recipe.digest
    fetch_folder(directory)  # of an object store: what another machine has prepared
    if not is_prepared(directory, spec):
        write_folder(
            directory,
            lambda folder: _write_prepared(folder, recipe),
            is_whole=lambda folder: (folder / MANIFEST).is_file(),
        )
    return load_prepared(directory)


def is_prepared(directory: Path, spec: DataSpec) -> bool:
    """Whether a directory holds the rows, and not more of them were left out for mistakes than the spec lets be."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        return False
    return json.loads(manifest.read_text(encoding="utf-8"))["num_bad_rows"] <= spec.max_bad_rows


def load_prepared(directory: Path) -> PreparedData:
    """What a directory of prepared rows holds, by its manifest."""
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    return PreparedData(
        directory=directory,
        digest=manifest["digest"],
        facts=DataFacts(**manifest["facts"] | {"warnings": tuple(manifest["facts"].get("warnings", ()))}),
        pad_id=manifest["pad_id"],
        stop_ids=tuple(manifest["stop_ids"]),
        warnings=tuple(manifest["warnings"]),
    )


def own_chat_template(directory: Path) -> str | None:
    """The template that the rows were written with, where it is not the tokenizer's own: the model must keep it."""
    file = directory / CHAT_TEMPLATE
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _write_prepared(folder: Path, recipe: Recipe) -> None:
    """Stream all rows into `folder`, and describe them in its manifest."""
    kitchen = recipe.kitchen
    spills = {split: RowSpill(folder / "spill", split) for split in SPLITS}
    with (folder / SKIPPED).open("w", encoding="utf-8") as skipped:
        prompts = {split: PromptFile(folder / f"{split}_prompts.arrow") for split in HELD_OUT}
        streamed = _stream(recipe, spills, prompts, skipped)
        for file in prompts.values():
            file.close()
    for spill in spills.values():
        spill.close()
    refuse_unusable(streamed, recipe)
    for split, ledger in streamed.ledgers.items():
        order = epoch_of(ledger, recipe.sources["train"]) if split == "train" else None
        _write_split(folder / f"{split}.arrow", spills[split], ledger, order, kitchen.spec)
    shutil.rmtree(folder / "spill")
    end_of_turn = streamed.ledgers["train"].end_of_turn
    manifest: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "digest": recipe.digest,
        "facts": asdict(facts_of(streamed, recipe)),
        "pad_id": kitchen.tokenizer.pad_id,
        "stop_ids": sorted({*kitchen.tokenizer.stop_ids, *([] if end_of_turn is None else [end_of_turn])}),
        "num_bad_rows": streamed.notes.num_bad_rows,
        "warnings": all_warnings(streamed, recipe),
        "spec": kitchen.spec.model_dump(),
    }
    if kitchen.template.name != TOKENIZER and TEXT_FORM not in streamed.notes.forms:
        (folder / CHAT_TEMPLATE).write_text(kitchen.template.source, encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _stream(
    recipe: Recipe, spills: Mapping[Split, RowSpill], prompts: Mapping[HeldOut, PromptFile], skipped: TextIO
) -> Streamed:
    """All rows through the tokenizer and into the spills; those that are left out into `skipped`."""
    spec = recipe.kitchen.spec
    reading = {split: Notes.that_keep_all(spec.max_bad_rows > 0) for split in recipe.sources}
    streamed = new_streamed(recipe)

    def tasks() -> Iterator[Task]:
        for split, source in recipe.sources.items():
            for chunk in chunks_of(source, reading[split]):
                reading[split].refuse_untrained(key_of(recipe.kitchen.spec, split))
                is_lost = any(notes.refuses(spec.max_bad_rows) for notes in (streamed.notes, *reading.values()))
                yield Task(chunk=chunk, split=split, is_checked_only=is_lost or _is_full(streamed, recipe, split))

    for part in make_parts(tasks(), recipe.kitchen):
        bad = list(part.notes.mistakes)
        streamed.notes.add(part.notes)
        streamed.given[part.split] += part.num_rows
        if len(recipe.sources) > 1:
            streamed.hashes[part.split].append(part.digests)
        for split, rows in part.splits.items():
            taken = streamed.ledgers[split].take(rows, part.mixed_part)
            refused = [mistake for _, mistake in taken.refused]
            streamed.notes.add_mistakes(refused)
            bad += refused
            spills[split].add(tokens=taken.tokens, trained=taken.trained, targets=taken.targets)
            if split != "train":
                prompts[split].add(taken.prompts, taken.references)
            for _, row in taken.skipped:
                _write_line(skipped, split, str(row.origin), row.num_tokens, row.reason)
        for mistake in bad if spec.max_bad_rows else ():
            _write_line(skipped, part.split, mistake.row, None, mistake.text)
    row_notes, streamed.notes = streamed.notes, Notes()
    for split, notes in reading.items():  # what stopped the reading of a file comes first
        streamed.notes.add(notes)
        for mistake in notes.mistakes if spec.max_bad_rows else ():
            _write_line(skipped, split, mistake.row, None, mistake.text)
    streamed.notes.add(row_notes)
    return streamed


def _is_full(streamed: Streamed, recipe: Recipe, split: Split) -> bool:
    """Whether no split that the files of `split` feed takes any more row."""
    fed = [s for s in SPLITS if s == split or (split == "train" and s not in recipe.sources)]
    return all(streamed.ledgers[s].room == 0 for s in fed)


def _write_line(file: TextIO, split: Split, row: str | None, num_tokens: int | None, reason: str) -> None:
    line = {"split": split, "row": row, "num_tokens": num_tokens, "reason": reason}
    file.write(json.dumps(line) + "\n")


def _write_split(file: Path, spill: RowSpill, ledger: Ledger, order: np.ndarray | None, spec: DataSpec) -> None:
    lengths = ledger.lengths()
    if spec.packing and file.stem == "train":
        packs = pack(lengths if order is None else lengths[order], spec.max_length)
        groups = packs if order is None else [order[rows] for rows in packs]
        write_ordered_rows(file, spill, lengths, groups, is_packed=True)
    elif order is not None:
        write_ordered_rows(file, spill, lengths, order, is_packed=False)
    else:
        write_rows(file, spill, lengths, ledger.num_trained())
