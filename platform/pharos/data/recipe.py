"""What prepared data are made from, and the digest that names them. Files are found and hashed; no row is read here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pharos.data.parts import Kitchen
from pharos.data.sources import Source, content_digest, find_sources
from pharos.data.split import fractions_of
from pharos.data.template import choose_template
from pharos.data.tokenise import load_tokenizer
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec

FORMAT_VERSION = 4
"""Of the files and of how tokens are made. One more makes every prepared directory be written anew."""

NOT_IN_DIGEST = {"train", "eval", "test", "template", "max_bad_rows", "eval_fraction", "test_fraction"}
"""Fields of the spec that change no token by themselves: what they lead to is in the digest instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that prepared data are made from; `digest` covers the rows of `sources` too."""

    digest: str
    sources: Mapping[Split, Source]
    kitchen: Kitchen


def recipe_of(spec: DataSpec, *, root: Path, tokenizer_dir: Path, tokenizer_digest: str) -> Recipe:
    """Sources, tokenizer, template and the digest over them, their contents and what of `spec` changes tokens."""
    sources, kitchen = open_kitchen(spec, root=root, tokenizer_dir=tokenizer_dir)
    tokenizer, template = kitchen.tokenizer, kitchen.template
    made_from = {
        "version": FORMAT_VERSION,
        "spec": spec.model_dump(exclude=NOT_IN_DIGEST),
        "fractions": kitchen.fractions,
        "contents": {split: content_digest(source) for split, source in sources.items()},
        "tokenizer": tokenizer_digest,
        "special_tokens": dict(tokenizer.special_tokens),
        "template": [template.name, template.source],
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    return Recipe(digest=digest, sources=sources, kitchen=kitchen)


def open_kitchen(spec: DataSpec, *, root: Path, tokenizer_dir: Path) -> tuple[Mapping[Split, Source], Kitchen]:
    """What rows are read from, and what makes tokens of them. Raises DataError, or BaseModelError for the tokenizer."""
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
    return sources, Kitchen(spec=spec, tokenizer=tokenizer, template=template, fractions=fractions)
