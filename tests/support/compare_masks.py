"""python tests/support/compare_masks.py FILE: masks of real conversations against independent references, by hand.

For a file of rows (JSONL or a JSON array): every built-in template with three kinds of tokenizers against transformers'
masks, and Baichuan2's against its published algorithm. The tests do the same with conversations written for them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def main() -> int:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.path[:0] = [str(ROOT), str(ROOT / "platform")]
    from tests.unit.data.tokenizers_of_kinds import byte_fallback, byte_level

    conversations = _conversations(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        knowing = byte_level(folder / "byte_level", knows_markers=True)
        kinds = {
            "byte-level": knowing,
            "byte-level without markers": byte_level(folder / "without_markers", knows_markers=False),
            "byte-fallback": byte_fallback(folder / "byte_fallback"),
        }
        different = sum(_against_transformers(kind, kinds[kind], conversations) for kind in kinds)
        different += _against_baichuan2(knowing, conversations)
    return 1 if different else 0


def _against_transformers(kind: str, directory: Path, conversations: list) -> int:
    """Prints one line a template; returns how many tokens differ."""
    from tests.unit.data.test_builtin_templates import built_in, messages_of, rows_of, to_the_last_byte
    from transformers import AutoTokenizer

    from pharos.data.tokenise import load_tokenizer
    from pharos.spec.rules import BUILTIN_TEMPLATES

    tokenizer, reference = load_tokenizer(directory), AutoTokenizer.from_pretrained(directory)
    all_different = 0
    for name in BUILTIN_TEMPLATES:
        template = built_in(name, tokenizer)
        tokens = trained_tokens = different = 0
        for conversation, row in zip(conversations, rows_of(template, tokenizer, conversations), strict=True):
            expected = reference.apply_chat_template(
                messages_of(conversation), chat_template=template.source, return_dict=True,
                return_assistant_tokens_mask=True,
            )  # fmt: skip
            assert row.tokens.tolist() == expected["input_ids"], conversation.origin
            mask = to_the_last_byte(expected["assistant_masks"], expected.encodings[0].offsets)
            trained = row.trained if row.targets is None else row.trained & (row.targets == row.tokens)
            tokens += len(mask)
            trained_tokens += sum(mask)
            different += int((trained != np.array(mask)).sum())
        all_different += different
        print(
            f"{name:10} {kind:27} {len(conversations):,} rows, {tokens:,} tokens, {trained_tokens:,} trained by "
            f"transformers, {different} differ"
        )
    return all_different


def _against_baichuan2(directory: Path, conversations: list) -> int:
    from tests.unit.data.test_builtin_templates import built_in, published_baichuan2, rows_of

    from pharos.data.tokenise import load_tokenizer

    tokenizer = load_tokenizer(directory)
    num_labels = different = 0
    rows = rows_of(built_in("baichuan2", tokenizer), tokenizer, conversations)
    for conversation, row in zip(conversations, rows, strict=True):
        inputs, labels = published_baichuan2(
            lambda text: tokenizer.tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.eos_id, conversation
        )
        assert row.tokens.tolist() == inputs, conversation.origin
        ours = np.where(row.trained, row.tokens if row.targets is None else row.targets, -100)
        num_labels += sum(label != -100 for label in labels[1:])
        different += int((ours[1:] != np.array(labels[1:])).sum())
    print(f"baichuan2 against its published algorithm: {num_labels:,} labels, {different} differ")
    return different


def _conversations(file: Path) -> list:
    from pharos.data.formats import Origin, detect_format, read_row

    text = file.read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    form = detect_format(rows[0])
    assert form is not None, f"{file}: the first row has no known form"
    found = [read_row(row, form, Origin(file=file.name, row=index))[0] for index, row in enumerate(rows)]
    return [conversation for conversation in found if conversation is not None]


if __name__ == "__main__":
    sys.exit(main())
