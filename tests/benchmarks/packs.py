"""How full packs are and how long packing takes, by lengths alone.

With `--data DIR`, which holds gsm8k_train.jsonl and conversations_fastchat.json, also of real rows, as two tokenizers
cut them: the built-in base's with its 2,048 tokens, and one of 32,000 trained on the two files, whose rows are about as
long as those of today's models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tests.benchmarks.reporting import Options, Report, Row, Table, Target
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from pharos.data.packing import best_fit_decreasing, filled_exactly, pack
from pharos.model.tiny_tokenizer import docstrings, train_tokenizer

NUM_ROWS = (10**4, 10**5, 10**6)
LENGTHS = (512, 2048)
LARGE_VOCABULARY = 32_000
TARGET_FILL = 0.98
NEARLY_LINEAR = 15.0
"""Times as long for ten times the rows."""


def run(options: Options) -> Report:
    num_rows = (100, 1000) if options.smoke else NUM_ROWS
    scaling = [time_packing(longest, count) for longest in LENGTHS for count in num_rows]
    tables = [Table(title="lognormal lengths, mean 0.3 of a pack: seconds of computing, and fill", rows=scaling)]
    targets = [
        Target(
            what=f"seconds for {num_rows[-1]:,} rows over {num_rows[-2]:,}, packs of {longest}",
            measured=_seconds(scaling, longest, num_rows[-1]) / max(_seconds(scaling, longest, num_rows[-2]), 1e-3),
            limit=NEARLY_LINEAR,
            at_most=True,
        )
        for longest in LENGTHS
    ]
    if options.data is not None:
        fills = fills_of(options.data)
        tables.append(Table(title="fill of real rows; longer rows are left out", rows=fills))
        targets += [
            Target(
                what=f"fill of {row['file']} at {row['max_length']}, or the best possible",
                measured=row["fill"],
                limit=min(TARGET_FILL, row["best possible"]),
            )
            for row in fills
            if row["vocabulary"] == LARGE_VOCABULARY
        ]
    return Report(settings={}, tables=tables, quality={}, targets=targets)


def time_packing(longest: int, num_rows: int) -> Row:
    lengths = np.random.default_rng(0).lognormal(np.log(0.3 * longest) - 0.125, 0.5, size=num_rows)
    lengths = lengths.clip(4, longest).astype(np.int64)
    started = time.process_time()
    packs = pack(lengths, longest)
    seconds = time.process_time() - started
    return {
        "max_length": longest,
        "rows": num_rows,
        "seconds": round(seconds, 3),
        "fill": round(_fill(lengths, len(packs), longest), 4),
        "fill by best-fit alone": round(_fill(lengths, len(best_fit_decreasing(lengths, longest)), longest), 4),
    }


def fills_of(directory: Path) -> list[Row]:
    questions = [json.loads(line) for line in (directory / "gsm8k_train.jsonl").read_text().splitlines()]
    conversations = json.loads((directory / "conversations_fastchat.json").read_text())
    texts = {
        "gsm8k_train.jsonl": [_chat(row["question"], row["answer"]) for row in questions],
        "conversations_fastchat.json": [
            _chat(*(turn["value"] for turn in row["conversations"])) for row in conversations
        ],
    }
    found = []
    for tokenizer in (
        train_tokenizer(docstrings()),
        _large_tokenizer([text for rows in texts.values() for text in rows]),
    ):
        for file, rows in texts.items():
            lengths = np.array([len(encoded.ids) for encoded in tokenizer.encode_batch_fast(rows)])
            found += [_fill_row(file, tokenizer, lengths[lengths <= longest], longest) for longest in LENGTHS]
    return found


def _fill_row(file: str, tokenizer: Tokenizer, lengths: np.ndarray, longest: int) -> Row:
    ways: dict[str, Callable[[np.ndarray, int], Sequence[object]]] = {
        "fill": pack,
        "by best-fit": best_fit_decreasing,
        "by exact filling": filled_exactly,
    }
    return {
        "file": file,
        "vocabulary": LARGE_VOCABULARY if tokenizer.get_vocab_size() > 2048 else tokenizer.get_vocab_size(),
        "max_length": longest,
        "rows": len(lengths),
        "packs": len(pack(lengths, longest)),
        **{name: round(_fill(lengths, len(way(lengths, longest)), longest), 4) for name, way in ways.items()},
        "best possible": round(_fill(lengths, fewest_packs(lengths, longest), longest), 4),
    }


def fewest_packs(lengths: np.ndarray, longest: int) -> int:
    """No packing needs fewer: the bound L2 of Martello and Toth (1990).

    It is not sharp where rows are about half a pack long. For GSM8K at 512 by the built-in base's tokens it lets packs
    be 0.9805 full; by Gilmore and Gomory's linear program (1961), which takes most of a minute at 2048, nothing fills
    them more than 0.9707: 3,790 packs, and rounding its solution makes 3,792.
    """
    bounds = [-(-int(lengths.sum()) // longest)]
    for small in range(longest // 2 + 1):
        alone = int((lengths > longest - small).sum())
        large = lengths[(lengths > longest // 2) & (lengths <= longest - small)]
        rest = lengths[(lengths >= small) & (lengths <= longest // 2)]
        over = int(rest.sum()) - (len(large) * longest - int(large.sum()))
        bounds.append(alone + len(large) + max(0, -(-over // longest)))
    return max(bounds)


def _fill(lengths: np.ndarray, num_packs: int, longest: int) -> float:
    return float(lengths.sum()) / (num_packs * longest)


def _seconds(rows: list[Row], longest: int, num_rows: int) -> float:
    return next(row["seconds"] for row in rows if (row["max_length"], row["rows"]) == (longest, num_rows))


def _chat(*turns: str) -> str:
    roles = ("user", "assistant")
    return "".join(f"<|im_start|>{roles[i % 2]}\n{text}<|im_end|>\n" for i, text in enumerate(turns))


def _large_tokenizer(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=LARGE_VOCABULARY,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
