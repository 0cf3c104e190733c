"""One way of preparing a file of rows, measured in a process of its own: `python -m tests.benchmarks.preparing WAY`.

Prints seconds, peak memory and what came out as JSON. Loads neither torch nor the tools of the benchmarks.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = (
    *("where", "when", "the", "a", "lighthouse", "harbour", "ship", "stands", "moves", "north", "south", "cliff"),
    *("light", "night", "keeper", "is", "are", "not", "of", "to", "and", "by", "with", "from", "under", "over"),
    *("storm", "calm", "water", "wind", "signal", "lamp", "turns", "every", "second", "minute", "hour", "red"),
)


def write_rows(file: Path, num_rows: int, *, seed: int = 0) -> None:
    """Questions and answers of a few words each, every one different."""
    draw = random.Random(seed)
    with file.open("w", encoding="utf-8") as stream:
        for number in range(num_rows):
            question = " ".join(draw.choices(WORDS, k=draw.randint(4, 14)))
            answer = " ".join(draw.choices(WORDS, k=draw.randint(3, 20)))
            stream.write(json.dumps({"question": f"{question} {number}?", "answer": f"{answer}."}) + "\n")


def pharos(file: Path, tokenizer_dir: Path, work: Path) -> dict[str, int]:
    """`prepare`: rows read, checked, split, rendered, tokenised, masked and written."""
    from pharos.data.prepare import open_split, prepare
    from pharos.spec.model import DataSpec

    spec = DataSpec(train=str(file), eval_fraction=0.01, test_fraction=0.01)
    prepared = prepare(
        spec, root=work, tokenizer_dir=tokenizer_dir, tokenizer_digest="benchmark", cache_dir=work / "prepared"
    )
    rows = [open_split(prepared.directory, split) for split in ("train", "eval", "test")]
    return {
        "rows": sum(map(len, rows)),
        "tokens": int(sum(part.lengths.sum() for part in rows)),
        "trained": int(sum(part.trained_counts.sum() for part in rows)),
    }


def datasets_map(file: Path, tokenizer_dir: Path, work: Path) -> dict[str, int]:
    """`datasets.map` doing the same: the tokenizer's chat template, tokens, and which of them are the answer's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir))

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        pairs = list(zip(batch["question"], batch["answer"], strict=True))
        asked = [[{"role": "user", "content": question}] for question, _ in pairs]
        whole = [[*turns, {"role": "assistant", "content": pair[1]}] for turns, pair in zip(asked, pairs, strict=True)]
        prompts = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        texts = tokenizer.apply_chat_template(whole, tokenize=False)
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
        trained = [
            [len(prompt) <= start < len(text.rstrip()) for start, _ in offsets]
            for prompt, text, offsets in zip(prompts, texts, encoded["offset_mapping"], strict=True)
        ]
        return {"input_ids": encoded["input_ids"], "trained": trained}

    return _map(file, work, tokenise)


def datasets_map_bare(file: Path, tokenizer_dir: Path, work: Path) -> dict[str, int]:
    """`datasets.map` doing the least: a text pasted together and the fast tokenizer, without template or mask."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        texts = [
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
            for question, answer in zip(batch["question"], batch["answer"], strict=True)
        ]
        return {"input_ids": [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]}

    return _map(file, work, tokenise)


def _map(file: Path, work: Path, tokenise: Callable[..., dict[str, list[Any]]]) -> dict[str, int]:
    import datasets

    from pharos.data.workers import usable_cores

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(work / "datasets"))
    cores = usable_cores()
    mapped = rows.map(tokenise, batched=True, num_proc=cores, remove_columns=rows.column_names)
    return {
        "rows": len(mapped),
        "tokens": _total(mapped, "input_ids", len),
        "trained": _total(mapped, "trained", sum) if "trained" in mapped.column_names else 0,
    }


def _total(rows: Any, column: str, count: Callable[[list[int]], int]) -> int:
    import pyarrow.compute as pc

    total = 0
    for batch in rows.with_format("arrow").iter(batch_size=10_000):
        column_values = batch.column(column)
        flat = pc.list_flatten(column_values)
        total += len(flat) if count is len else pc.sum(flat.cast("int64")).as_py()
    return total


WAYS = {"pharos": pharos, "datasets.map": datasets_map, "datasets.map, bare": datasets_map_bare}


def main() -> None:
    way, file, tokenizer_dir, work = sys.argv[1], *map(Path, sys.argv[2:])
    started = time.perf_counter()
    found = WAYS[way](file, tokenizer_dir, work)
    seconds = time.perf_counter() - started
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": _peak_mb(), "peak_mb_of_a_child": worker, **found}))


def _peak_mb() -> float:
    """Of this process since it began. Its ru_maxrss begins with what the process that started it had (Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    main()
