"""What `pharos plan` asks of the data: how many rows, and how long. Nothing is written here.

Read from prepared data where they lie in the cache, else reckoned: rows are counted, tokens of many rows by a sample.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pharos.data.prepare import MANIFEST, facts_of, fit_splits, load_prepared, recipe_of
from pharos.data.split import load_splits
from pharos.plan.facts import DataFacts
from pharos.spec.model import DataSpec

SAMPLE_ROWS = 2000


def data_facts(
    spec: DataSpec,
    *,
    root: Path,
    tokenizer_dir: Path,
    tokenizer_digest: str,
    cache_dir: Path,
    sample_rows: int = SAMPLE_ROWS,
) -> DataFacts:
    """The facts of the data, with the digest that `prepare` would give them.

    With more than `sample_rows` rows in all, lengths are those of so many training rows, the same on every call, and
    the facts are marked estimated. Raises what `prepare` raises, as far as the sample shows it.
    """
    recipe = recipe_of(spec, root=root, tokenizer_dir=tokenizer_dir, tokenizer_digest=tokenizer_digest)
    prepared = cache_dir / recipe.digest
    if (prepared / MANIFEST).is_file():
        return load_prepared(prepared).facts
    splits = load_splits(spec, root=root)
    if sum(map(len, splits.rows.values())) <= sample_rows:
        return facts_of(splits, fit_splits(splits, spec, recipe), recipe, spec)

    # By bytes of the hash that did not decide the split, so that neither order nor split leans on the sample.
    sample = sorted(splits.rows["train"], key=lambda row: row.digest[8:])[:sample_rows]
    fitted = fit_splits(replace(splits, rows={"train": sample}), spec, recipe)
    num_rows = len(splits.rows["train"])
    per_sample = num_rows / len(sample)
    facts = facts_of(splits, fitted, recipe, spec, estimated=True)
    return replace(
        facts,
        num_packs=None if facts.num_packs is None else round(facts.num_packs * per_sample),
        num_train_rows=num_rows - round(len(fitted["train"].skipped) * per_sample),
        num_long_rows=round(len(fitted["train"].long) * per_sample),
        num_rows_cut_inside=round(len(fitted["train"].cut_inside) * per_sample),
    )
