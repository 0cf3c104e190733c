"""What `pharos plan` asks of the data: how many rows, and how long. Nothing is written here.

Read from prepared data where they lie in the cache, else reckoned: rows are counted, tokens of many rows by a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappush, heapreplace
from pathlib import Path

from pharos.data.formats import Conversation, Text, Trainable
from pharos.data.load import chunks_of, rows_of_chunk
from pharos.data.parts import make_split_part
from pharos.data.prepare import is_prepared, load_prepared
from pharos.data.recipe import Recipe, recipe_of
from pharos.data.sources import key_of
from pharos.data.split import SPLITS, hashes, split_of
from pharos.data.streamed import Streamed, facts_of, new_streamed, refuse_unusable
from pharos.plan.exchange import Split
from pharos.plan.facts import DataFacts
from pharos.spec.model import DataSpec

SAMPLE_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    row: Trainable
    digest: bytes
    mixed_part: int


class _Sample:
    """The rows of one split with the lowest hashes, so many at most: the same whatever the order of the files.

    By bytes of the hash that did not decide the split, so that neither order nor split leans on the sample.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, int, _Row]] = []  # by hash, then the later first
        self._count = 0

    def add(self, row: _Row) -> None:
        self._count += 1
        entry = (-int.from_bytes(row.digest[8:]), self._count, row)
        if len(self._heap) < self._size:
            heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapreplace(self._heap, entry)

    def rows(self) -> list[_Row]:
        """In the order of the files."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[1])]


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
    if is_prepared(prepared, spec):
        return load_prepared(prepared).facts
    streamed, samples, num_rows = _survey(recipe, sample_rows)
    if sum(num_rows.values()) <= sample_rows:
        for split in SPLITS:
            _tokenise(samples[split].rows(), split, streamed, recipe)
        refuse_unusable(streamed, recipe)
        return facts_of(streamed, recipe)

    for split in ("eval", "test"):
        streamed.ledgers[split].num_rows = streamed.ledgers[split].num_kept = num_rows[split]
    sample = samples["train"].rows()
    _tokenise(sample, "train", streamed, recipe)
    refuse_unusable(streamed, recipe)
    per_sample = num_rows["train"] / len(sample)
    facts = facts_of(streamed, recipe, estimated=True)
    train = streamed.ledgers["train"]
    return replace(
        facts,
        num_packs=None if facts.num_packs is None else round(facts.num_packs * per_sample),
        num_train_rows=num_rows["train"] - round(train.num_skipped * per_sample),
        num_long_rows=round(train.num_long * per_sample),
        num_rows_cut_inside=round(train.num_cut_inside * per_sample),
    )


def _survey(recipe: Recipe, sample_rows: int) -> tuple[Streamed, dict[Split, _Sample], dict[Split, int]]:
    """All rows read once: a sample of each split, and how many rows it has within its limit."""
    spec = recipe.kitchen.spec
    streamed = new_streamed(recipe)
    samples = {split: _Sample(sample_rows) for split in SPLITS}
    num_rows: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for given, source in recipe.sources.items():
        for chunk in chunks_of(source, streamed.notes):
            streamed.notes.refuse_untrained(key_of(spec, given))
            digests: list[bytes] = []
            for row in rows_of_chunk(chunk, streamed.notes):
                if not isinstance(row, Conversation | Text):  # refused above, as a form
                    continue
                digests.append(digest := row.digest)
                split = split_of(digest, *recipe.kitchen.fractions) if given == "train" else given
                streamed.given[given] += 1
                limit = streamed.ledgers[split].limit
                if limit is None or num_rows[split] < limit:
                    num_rows[split] += 1
                    samples[split].add(_Row(row=row, digest=digest, mixed_part=chunk.file.part))
            if len(recipe.sources) > 1:
                streamed.hashes[given].append(hashes(digests))
    streamed.notes.raise_mistakes(spec.max_bad_rows)
    return streamed, samples, num_rows


def _tokenise(rows: Sequence[_Row], split: Split, streamed: Streamed, recipe: Recipe) -> None:
    """Book rows in the ledger of their split, those of each mixed source together."""
    for mixed_part in sorted({row.mixed_part for row in rows}):
        chosen = [row for row in rows if row.mixed_part == mixed_part]
        part = make_split_part([row.row for row in chosen], [row.digest for row in chosen], split, recipe.kitchen)
        taken = streamed.ledgers[split].take(part, mixed_part)
        streamed.notes.add_mistakes([mistake for _, mistake in taken.refused])
