"""What is known of rows once they have passed: whether they can be trained on, the facts of a plan, the warnings.

`prepare` has all rows pass, `data_facts` a sample of them. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pharos.data.findings import DATE_WARNING, cut_at_turn_warning, cut_inside_warning, skipped_warning
from pharos.data.ledger import LONG_SHOWN, Ledger
from pharos.data.load import Notes
from pharos.data.mixing import mixed_order, mixture
from pharos.data.packing import pack
from pharos.data.recipe import Recipe
from pharos.data.sources import Source
from pharos.data.split import SPLITS, overlap_warnings, refuse_empty
from pharos.data.template_warnings import template_warnings
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.plan.facts import DataFacts

SKIPPED = "skipped.jsonl"
"""The file beside prepared data that names the rows that were left out."""


@dataclass(slots=True, kw_only=True)
class Streamed:
    """What is known once all rows have passed. given: how many rows stand in each split's files; hashes: of them."""

    ledgers: dict[Split, Ledger]
    notes: Notes
    given: dict[Split, int]
    hashes: dict[Split, list[np.ndarray]]


def new_streamed(recipe: Recipe) -> Streamed:
    """Before any row has passed."""
    spec = recipe.kitchen.spec
    limits = (spec.max_train_rows, spec.max_eval_rows, spec.max_test_rows)
    return Streamed(
        ledgers={split: Ledger(limit=limit) for split, limit in zip(SPLITS, limits, strict=True)},
        notes=Notes(),
        given=dict.fromkeys(recipe.sources, 0),
        hashes={split: [] for split in recipe.sources},
    )


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
        warnings=_reading_warnings(streamed, recipe),
    )


def all_warnings(streamed: Streamed, recipe: Recipe) -> list[str]:
    """What a person should know of the prepared rows: of the reading, of rows left out or cut, of the template."""
    spec = recipe.kitchen.spec
    warnings = [*_reading_warnings(streamed, recipe)]
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


def _reading_warnings(streamed: Streamed, recipe: Recipe) -> tuple[str, ...]:
    """What was found while the rows were read: rows in two splits, columns that are not used, files left aside."""
    given = {split: np.concatenate(found) for split, found in streamed.hashes.items() if found}
    notes = [note for source in recipe.sources.values() for note in source.notes]
    return (*notes, *streamed.notes.warnings(), *overlap_warnings(given))
