"""Rows as they lie on disk, ready to train on: tokenised once per sweep, named by a digest of all that made them.

`prepare` writes a directory, or finds it; rows stream through and are never all in memory. No order, no batches here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pharos.data.findings import DATE_WARNING, cut_at_turn_warning, cut_inside_warning, skipped_warning
from pharos.data.ledger import LONG_SHOWN, Ledger
from pharos.data.load import Notes, chunks_of
from pharos.data.mixing import mixed_order, mixture
from pharos.data.packing import pack
from pharos.data.parts import SPLITS, Kitchen, Task
from pharos.data.sources import Source, content_digest, find_sources, key_of
from pharos.data.split import fractions_of, overlap_warnings, refuse_empty
from pharos.data.store import PromptFile, RowSpill, TokenRows, open_prompts, open_split, write_ordered_rows, write_rows
from pharos.data.template import TOKENIZER, choose_template
from pharos.data.template_warnings import template_warnings
from pharos.data.tokenise import load_tokenizer
from pharos.data.workers import make_parts
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.plan.facts import DataFacts
from pharos.spec.model import DataSpec

__all__ = ["PreparedData", "TokenRows", "load_prepared", "open_prompts", "open_split", "prepare"]

FORMAT_VERSION = 3
"""Of the files and of how tokens are made. One more makes every prepared directory be written anew."""

MANIFEST = "manifest.json"
CHAT_TEMPLATE = "chat_template.jinja"
TEXT_FORM = "text"
SKIPPED = "skipped.jsonl"
NOT_IN_DIGEST = {"train", "eval", "test", "template", "max_bad_rows", "eval_fraction", "test_fraction"}
"""Fields of the spec that change no token by themselves: what they lead to is in the digest instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """A directory of prepared rows. pad_id fills batches; generation ends at any of stop_ids."""

    directory: Path
    digest: str
    facts: DataFacts
    pad_id: int
    stop_ids: tuple[int, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that prepared data are made from; `digest` covers the rows of `sources` too."""

    digest: str
    sources: Mapping[Split, Source]
    kitchen: Kitchen


@dataclass(slots=True, kw_only=True)
class Streamed:
    """What is known once all rows have passed. given: how many rows stand in each split's files; hashes: of them."""

    ledgers: dict[Split, Ledger]
    notes: Notes
    given: dict[Split, int]
    hashes: dict[Split, list[np.ndarray]]


def prepare(spec: DataSpec, *, root: Path, tokenizer_dir: Path, tokenizer_digest: str, cache_dir: Path) -> PreparedData:
    """The prepared rows under `cache_dir`, made on the first call and found on the next.

    `root` is the directory of the spec file. Raises DataError for rows that are malformed, too long where
    data.long_rows=error, or not there; BaseModelError for a tokenizer that cannot be used.
    """
    recipe = recipe_of(spec, root=root, tokenizer_dir=tokenizer_dir, tokenizer_digest=tokenizer_digest)
    directory = cache_dir / recipe.digest
    if not is_prepared(directory, spec):
        _write(directory, lambda folder: _write_prepared(folder, recipe))
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


def recipe_of(spec: DataSpec, *, root: Path, tokenizer_dir: Path, tokenizer_digest: str) -> Recipe:
    """Sources, tokenizer, template and the digest over them, their contents and what of `spec` changes tokens."""
    tokenizer = load_tokenizer(tokenizer_dir)
    template = choose_template(
        spec.template,
        root=root,
        directory=tokenizer_dir,
        special_tokens=tokenizer.special_tokens,
        adds_bos=tokenizer.adds_bos,
    )
    sources = find_sources(spec, root=root)
    fractions = fractions_of(sources, spec.eval_fraction, spec.test_fraction)
    made_from = {
        "version": FORMAT_VERSION,
        "spec": spec.model_dump(exclude=NOT_IN_DIGEST),
        "fractions": fractions,
        "contents": {split: content_digest(source) for split, source in sources.items()},
        "tokenizer": tokenizer_digest,
        "special_tokens": dict(tokenizer.special_tokens),
        "template": [template.name, template.source],
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    kitchen = Kitchen(spec=spec, tokenizer=tokenizer, template=template, fractions=fractions)
    return Recipe(digest=digest, sources=sources, kitchen=kitchen)


def new_ledgers(spec: DataSpec) -> dict[Split, Ledger]:
    limits = (spec.max_train_rows, spec.max_eval_rows, spec.max_test_rows)
    return {split: Ledger(limit=limit) for split, limit in zip(SPLITS, limits, strict=True)}


def refuse_unusable(streamed: Streamed, recipe: Recipe) -> None:
    """Raises DataError, all rows at once, for what cannot be trained on."""
    spec, ledgers = recipe.kitchen.spec, streamed.ledgers
    streamed.notes.raise_mistakes(spec.max_bad_rows)
    num_rows = {split: ledger.num_rows for split, ledger in ledgers.items()}
    refuse_empty(num_rows, streamed.given["train"], recipe.kitchen.fractions)
    if spec.long_rows == "error":
        _refuse_long_rows(ledgers, spec.max_length)
    for split, ledger in ledgers.items():
        if ledger.first_skipped is not None and not ledger.num_kept:
            raise DataError(
                f"data.{split}: all {ledger.num_skipped:,} rows were skipped, the first, "
                f"{ledger.first_skipped.origin}, for: {ledger.first_skipped.reason}. "
                f"data.max_length={spec.max_length} and the shortest of them has {ledger.least_skipped_tokens:,} "
                "tokens. Raise data.max_length."
            )


def epoch_of(train: Ledger, source: Source) -> np.ndarray | None:
    """The rows of an epoch, int64, where sources are mixed; none where it is every row once."""
    return mixed_order(train.mixed_parts(), train.digests(), source.weights) if source.weights else None


def facts_of(streamed: Streamed, recipe: Recipe, *, estimated: bool = False) -> DataFacts:
    """The facts that a plan needs; lengths are those of the training rows, in the mixture of an epoch."""
    spec, ledgers, train = recipe.kitchen.spec, streamed.ledgers, recipe.sources["train"]
    lengths, trained = ledgers["train"].lengths(), ledgers["train"].num_trained()
    mixed = ""
    epoch = epoch_of(ledgers["train"], train)
    if epoch is not None:
        mixed = mixture(ledgers["train"].mixed_parts(), epoch, train.parts)
        lengths, trained = lengths[epoch], trained[epoch]
    return DataFacts(
        num_train_rows=len(lengths),
        num_eval_rows=ledgers["eval"].num_kept,
        num_test_rows=ledgers["test"].num_kept,
        mean_tokens=float(lengths.mean()),
        p95_tokens=int(np.percentile(lengths, 95, method="higher")),
        max_tokens=int(lengths.max()),
        mean_trained_tokens=float(trained.mean()),
        num_long_rows=sum(ledger.num_long for ledger in ledgers.values()),
        num_rows_cut_inside=sum(ledger.num_cut_inside for ledger in ledgers.values()),
        num_packs=len(pack(lengths, spec.max_length)) if spec.packing else None,
        format=", ".join(streamed.notes.forms),
        template=recipe.kitchen.template.name,
        digest=recipe.digest,
        estimated=estimated,
        mixture=mixed,
        warnings=reading_warnings(streamed, recipe),
    )


def _write_prepared(folder: Path, recipe: Recipe) -> None:
    """Stream all rows into `folder`, and describe them in its manifest."""
    kitchen = recipe.kitchen
    spills = {split: RowSpill(folder / "spill", split) for split in SPLITS}
    with (folder / SKIPPED).open("w", encoding="utf-8") as skipped:
        prompts = PromptFile(folder / "test_prompts.arrow")
        streamed = _stream(recipe, spills, prompts, skipped)
        prompts.close()
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
        "warnings": _warnings(streamed, recipe),
        "spec": kitchen.spec.model_dump(),
    }
    if kitchen.template.name != TOKENIZER and TEXT_FORM not in streamed.notes.forms:
        (folder / CHAT_TEMPLATE).write_text(kitchen.template.source, encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _stream(recipe: Recipe, spills: Mapping[Split, RowSpill], prompts: PromptFile, skipped: TextIO) -> Streamed:
    """All rows through the tokenizer and into the spills; those that are left out into `skipped`."""
    spec = recipe.kitchen.spec
    reading = {split: Notes.that_keep_all(spec.max_bad_rows > 0) for split in recipe.sources}
    streamed = Streamed(
        ledgers=new_ledgers(spec),
        notes=Notes(),
        given=dict.fromkeys(recipe.sources, 0),
        hashes={split: [] for split in recipe.sources},
    )

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
            if split == "test":
                prompts.add(taken.prompts, taken.references)
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


def _refuse_long_rows(ledgers: Mapping[Split, Ledger], max_length: int) -> None:
    """Raises DataError naming rows that are too long, if any, and the max_length that would hold them all."""
    num_long = sum(ledger.num_long for ledger in ledgers.values())
    if not num_long:
        return
    shown = [row for ledger in ledgers.values() for row in ledger.long][:LONG_SHOWN]
    lines = [f"{origin}: {num_tokens:,} tokens" for origin, num_tokens in shown]
    rest = [f"... and {num_long - len(shown):,} more"] if num_long > len(shown) else []
    needed = max(ledger.longest for ledger in ledgers.values())
    raise DataError(
        f"data.max_length={max_length}, but {num_long:,} rows are longer. Set data.max_length={needed}, or "
        "data.long_rows=truncate to cut them or skip to leave them out.\n" + "\n".join(lines + rest)
    )


def reading_warnings(streamed: Streamed, recipe: Recipe) -> tuple[str, ...]:
    """What was found while the rows were read: rows in two splits, columns that are not used, files left aside."""
    given = {split: np.concatenate(found) for split, found in streamed.hashes.items() if found}
    notes = [note for source in recipe.sources.values() for note in source.notes]
    return (*notes, *streamed.notes.warnings(), *overlap_warnings(given))


def _warnings(streamed: Streamed, recipe: Recipe) -> list[str]:
    spec = recipe.kitchen.spec
    warnings = [*reading_warnings(streamed, recipe)]
    if streamed.notes.num_bad_rows:
        warnings.append(
            f"{streamed.notes.num_bad_rows:,} rows are in error and were left out, as data.max_bad_rows="
            f"{spec.max_bad_rows} lets them; {SKIPPED} beside the prepared data names them"
        )
    for split, ledger in streamed.ledgers.items():
        if ledger.num_cut_at_turn:
            warnings.append(cut_at_turn_warning(split, ledger.num_cut_at_turn, spec.max_length))
        if ledger.num_cut_inside:
            first = str(ledger.first_cut_inside)
            warnings.append(cut_inside_warning(split, ledger.num_cut_inside, spec.max_length, first=first))
        if ledger.num_skipped:
            warnings.append(skipped_warning(split, ledger.num_skipped, f"{SKIPPED} beside the prepared data"))
    template, tokenizer = recipe.kitchen.template, recipe.kitchen.tokenizer
    warnings += template_warnings(template, tokenizer.known_tokens)
    if template.writes_the_date:
        warnings.append(DATE_WARNING)
    return warnings


def _write(directory: Path, write: Callable[[Path], None]) -> None:
    """Have a directory written beside and renamed when whole, so nobody sees half of it.

    Where two processes write it at once, the second to finish keeps the first one's.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))
    try:
        unfinished.chmod(0o755)
        write(unfinished)
        os.replace(unfinished, directory)
    except OSError:
        if not (directory / MANIFEST).is_file():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
