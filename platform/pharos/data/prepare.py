"""Rows as they lie on disk, ready to train on: tokenised once per sweep, named by a digest of all that made them.

`prepare` writes a directory, or finds it; `open_split` reads it through a memory map. No order and no batches here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pharos.data.load import content_digest, find_sources, raise_mistakes
from pharos.data.packing import pack, positions
from pharos.data.split import Splits, load_splits
from pharos.data.template import Template, choose_template
from pharos.data.template_warnings import template_warnings
from pharos.data.tokenise import (
    Fitted,
    TextTokenizer,
    TokenRow,
    end_of_turn_id,
    fit_rows,
    load_tokenizer,
    refuse_long_rows,
    render_prompt,
    tokenise,
)
from pharos.errors import DataError
from pharos.plan.exchange import Split
from pharos.plan.facts import DataFacts
from pharos.spec.model import DataSpec

FORMAT_VERSION = 2
"""Of the files and of how tokens are made. One more makes every prepared directory be written anew."""

MANIFEST = "manifest.json"
SKIPPED = "skipped.jsonl"
DTYPES = {"I32": np.int32, "I64": np.int64, "U8": np.uint8}


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
class TokenRows:
    """Rows of one split, mapped from disk. lengths, trained_counts: tokens of each row, int64 (N,).

    Where training rows are packed, a row here is a pack, and `positions` tells its rows apart.
    """

    tokens: np.ndarray  # int32, all rows end to end
    trained: np.ndarray  # uint8, 0 or 1, beside tokens
    offsets: np.ndarray  # int64 (N + 1,): row i is tokens[offsets[i]:offsets[i + 1]]
    lengths: np.ndarray
    trained_counts: np.ndarray
    positions: np.ndarray | None = None  # int32, beside tokens: the place of each in its own row
    targets: np.ndarray | None = None  # int32, beside tokens: what is to be predicted there, where it is not the token

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (T,) int32 and trained (T,) bool of a row, as views of the file."""
        place = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[place], self.trained[place].view(bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that prepared data are made from, but the rows; `digest` covers the rows too."""

    digest: str
    tokenizer: TextTokenizer
    template: Template


def prepare(spec: DataSpec, *, root: Path, tokenizer_dir: Path, tokenizer_digest: str, cache_dir: Path) -> PreparedData:
    """The prepared rows under `cache_dir`, made on the first call and found on the next.

    `root` is the directory of the spec file. Raises DataError for rows that are malformed, too long where
    data.long_rows=error, or not there; BaseModelError for a tokenizer that cannot be used.
    """
    recipe = recipe_of(spec, root=root, tokenizer_dir=tokenizer_dir, tokenizer_digest=tokenizer_digest)
    directory = cache_dir / recipe.digest
    if not (directory / MANIFEST).is_file():
        splits = load_splits(spec, root=root)
        fitted = fit_splits(splits, spec, recipe)
        _write(directory, lambda folder: _write_prepared(folder, spec, recipe, splits, fitted))
    return load_prepared(directory)


def load_prepared(directory: Path) -> PreparedData:
    """What a directory of prepared rows holds, by its manifest."""
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    return PreparedData(
        directory=directory,
        digest=manifest["digest"],
        facts=DataFacts(**manifest["facts"]),
        pad_id=manifest["pad_id"],
        stop_ids=tuple(manifest["stop_ids"]),
        warnings=tuple(manifest["warnings"]),
    )


def open_split(directory: Path, split: Split) -> TokenRows:
    """The rows of a split, read from disk only where they are touched."""
    arrays = _map_arrays(directory / f"{split}.safetensors")
    tokens, trained, offsets = arrays["tokens"], arrays["trained"], np.array(arrays["offsets"])
    return TokenRows(
        tokens=tokens,
        trained=trained,
        offsets=offsets,
        lengths=np.diff(offsets),
        trained_counts=np.add.reduceat(trained, offsets[:-1], dtype=np.int64),
        positions=arrays.get("positions"),
        targets=arrays.get("targets"),
    )


def open_prompts(directory: Path) -> tuple[list[np.ndarray], list[str]]:
    """What to generate from for each test row, token ids (P,) int32, and the reference answers."""
    arrays = _map_arrays(directory / "test_prompts.safetensors")
    references = json.loads((directory / "test_references.json").read_text(encoding="utf-8"))
    return np.split(arrays["tokens"], np.array(arrays["offsets"])[1:-1]), references


def recipe_of(spec: DataSpec, *, root: Path, tokenizer_dir: Path, tokenizer_digest: str) -> Recipe:
    """Tokenizer, template and the digest over them, over the files' contents and over every field of `spec`."""
    tokenizer = load_tokenizer(tokenizer_dir)
    template = choose_template(
        spec.template,
        root=root,
        directory=tokenizer_dir,
        special_tokens=tokenizer.special_tokens,
        adds_bos=tokenizer.adds_bos,
    )
    made_from = {
        "version": FORMAT_VERSION,
        "spec": spec.model_dump(),
        "contents": {split: content_digest(source) for split, source in find_sources(spec, root=root).items()},
        "tokenizer": tokenizer_digest,
        "special_tokens": dict(tokenizer.special_tokens),
        "template": template.source,
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    return Recipe(digest=digest, tokenizer=tokenizer, template=template)


def fit_splits(splits: Splits, spec: DataSpec, recipe: Recipe) -> dict[Split, Fitted]:
    """All rows as tokens of at most max_length. Raises DataError, all rows at once, for what cannot be trained on."""
    mistakes: list[str] = []
    tokens_of = partial(
        tokenise, template=recipe.template, tokenizer=recipe.tokenizer, mistakes=mistakes, train_on=spec.train_on
    )
    fitted = {
        split: fit_rows(tokens_of(rows), max_length=spec.max_length, long_rows=spec.long_rows, tokens_of=tokens_of)
        for split, rows in splits.rows.items()
    }
    raise_mistakes(mistakes)
    if spec.long_rows == "error":
        refuse_long_rows([row for part in fitted.values() for row in part.long], spec.max_length)
    for split, part in fitted.items():
        if not part.rows:
            first = part.skipped[0]
            raise DataError(
                f"data.{split}: all {len(part.skipped):,} rows were skipped, the first, {first.origin}, for: "
                f"{first.reason}. data.max_length={spec.max_length} and the shortest of them has "
                f"{min(row.num_tokens for row in part.skipped):,} tokens. Raise data.max_length."
            )
    return fitted


def facts_of(
    splits: Splits, fitted: Mapping[Split, Fitted], recipe: Recipe, spec: DataSpec, *, estimated: bool = False
) -> DataFacts:
    """The facts that a plan needs; lengths are those of the training rows of `fitted`."""
    lengths = np.array([len(row.tokens) for row in fitted["train"].rows])
    trained = np.array([int(row.trained.sum()) for row in fitted["train"].rows])
    num_rows = {s: len(fitted[s].rows) if s in fitted else len(rows) for s, rows in splits.rows.items()}
    return DataFacts(
        num_train_rows=num_rows["train"],
        num_eval_rows=num_rows["eval"],
        num_test_rows=num_rows["test"],
        mean_tokens=float(lengths.mean()),
        p95_tokens=int(np.percentile(lengths, 95, method="higher")),
        max_tokens=int(lengths.max()),
        mean_trained_tokens=float(trained.mean()),
        num_long_rows=sum(len(part.long) for part in fitted.values()),
        num_rows_cut_inside=sum(len(part.cut_inside) for part in fitted.values()),
        num_packs=len(pack(lengths, spec.max_length)) if spec.packing else None,
        format=splits.format,
        template=recipe.template.name,
        digest=recipe.digest,
        estimated=estimated,
    )


def _write_prepared(
    folder: Path, spec: DataSpec, recipe: Recipe, splits: Splits, fitted: Mapping[Split, Fitted]
) -> None:
    for split, part in fitted.items():
        is_packed = spec.packing and split == "train"
        arrays = packed_arrays(part.rows, spec.max_length) if is_packed else row_arrays(part.rows)
        save_file(arrays, folder / f"{split}.safetensors")
    prompts = [render_prompt(row.conversation, recipe.template, recipe.tokenizer) for row in fitted["test"].rows]
    save_file(_flat([tokens for tokens, _ in prompts]), folder / "test_prompts.safetensors")
    (folder / "test_references.json").write_text(json.dumps([text for _, text in prompts]), encoding="utf-8")
    skipped = [
        json.dumps({"split": split, "row": str(row.origin), "num_tokens": row.num_tokens, "reason": row.reason}) + "\n"
        for split, part in fitted.items()
        for row in part.skipped
    ]
    (folder / SKIPPED).write_text("".join(skipped), encoding="utf-8")
    shortest = min(fitted["train"].rows, key=lambda row: len(row.tokens))  # the last to have lost its end by a cut
    end_of_turn = end_of_turn_id(shortest, recipe.tokenizer)
    manifest: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "digest": recipe.digest,
        "facts": asdict(facts_of(splits, fitted, recipe, spec)),
        "pad_id": recipe.tokenizer.pad_id,
        "stop_ids": sorted({*recipe.tokenizer.stop_ids, *([] if end_of_turn is None else [end_of_turn])}),
        "warnings": [*splits.warnings, *_warnings(spec, recipe, fitted)],
        "spec": spec.model_dump(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def row_arrays(rows: Sequence[TokenRow]) -> dict[str, np.ndarray]:
    """Tokens of all rows end to end, which of them are trained, and where each row begins; targets if they differ."""
    arrays = {
        **_flat([row.tokens for row in rows]),
        "trained": np.concatenate([row.trained for row in rows]).astype(np.uint8),
    }
    if any(row.targets is not None for row in rows):
        targets = [row.tokens if row.targets is None else row.targets for row in rows]
        arrays["targets"] = np.concatenate(targets).astype(np.int32)
    return arrays


def packed_arrays(rows: Sequence[TokenRow], max_length: int) -> dict[str, np.ndarray]:
    """`row_arrays` of packs, and each token's position in its own row. A row's first token is predicted by nothing."""
    packs = pack([len(row.tokens) for row in rows], max_length)
    in_order = [rows[index] for indices in packs for index in indices]
    arrays = row_arrays(in_order)
    arrays["positions"] = positions([len(row.tokens) for row in in_order])
    arrays["trained"][arrays["positions"] == 0] = 0
    pack_lengths = [sum(len(rows[index].tokens) for index in indices) for indices in packs]
    return arrays | {"offsets": np.cumsum([0, *pack_lengths], dtype=np.int64)}


def _warnings(spec: DataSpec, recipe: Recipe, fitted: Mapping[Split, Fitted]) -> list[str]:
    warnings = []
    for split, part in fitted.items():
        if part.cut_at_turn:
            warnings.append(
                f"data.{split}: {len(part.cut_at_turn):,} rows were cut at a turn: all that follows the last answer "
                f"within data.max_length={spec.max_length} is left out"
            )
        if part.cut_inside:
            warnings.append(
                f"data.{split}: {len(part.cut_inside):,} rows were cut inside a turn, the first, {part.cut_inside[0]}: "
                f"their first exchange alone is longer than data.max_length={spec.max_length}; its answer has no end"
            )
        if part.skipped:
            warnings.append(
                f"data.{split}: {len(part.skipped):,} rows were skipped; {SKIPPED} beside the prepared data names them"
            )
    warnings += template_warnings(recipe.template, recipe.tokenizer.known_tokens)
    if recipe.template.writes_the_date:
        warnings.append("the chat template writes today's date: these rows keep the date of their preparation")
    return warnings


def _flat(rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Rows end to end, and where each begins."""
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return {"tokens": np.concatenate(rows).astype(np.int32), "offsets": offsets}


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


def _map_arrays(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as read-only memory maps: 8 bytes of header length, JSON header, data."""
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(header_bytes))
    return {
        name: np.memmap(
            file,
            mode="r",
            dtype=DTYPES[tensor["dtype"]],
            shape=tuple(tensor["shape"]),
            offset=8 + header_bytes + tensor["data_offsets"][0],
        )
        for name, tensor in header.items()
        if name != "__metadata__"
    }
