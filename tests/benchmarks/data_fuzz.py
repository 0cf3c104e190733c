"""Damaged data files by the thousand: each must be read, or refused with a message that names the file and the place.

python tests/benchmarks/data_fuzz.py [--files 10000] [--seed 0] prints what became of them, and ends with 1 if one
crashed, hung or was refused without a place. A seeded part of it runs with the tests.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT_S = 20
"""Far beyond what any file here takes: longer is a hang."""
PLACES = (
    r":\d+", r"\[\d+\]", r"offset [\d,]+", r"holds no row", r"cannot be read: .+",
)  # fmt: skip
"""A line, an index, a byte; or, where a file has no rows to name, what is wrong with the whole of it."""

ROWS: tuple[dict[str, Any], ...] = (
    {"question": "Where is the lighthouse?", "answer": "On the cliff, 60 m high."},
    {"prompt": "Übersetze: 灯台", "completion": "lighthouse 🗼"},
    {"instruction": "Name it.", "input": "tower with a light", "output": "A lighthouse."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy."}]},
    {"conversations": [{"from": "human", "value": "Who keeps it?"}, {"from": "gpt", "value": "The keeper."}]},
)
ODD_VALUES: tuple[Any, ...] = (None, True, -1, 1.5e308, "", " ", [], {}, [[]], [None], {"": None}, "\x00", "x" * 70_000)

Mutation = Callable[[bytes, random.Random], bytes]


@dataclass(slots=True)
class Outcome:
    """Counts by kind of file and damage; failures: the file's number, and what went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")  # seconds, and the file


def fuzz(folder: Path, *, tokenizer_dir: Path, num_files: int, seed: int) -> Outcome:
    """Write damaged files into `folder`, one after another, and read each as `pharos plan` and a sweep do."""
    from pharos.data.facts import data_facts
    from pharos.data.prepare import prepare
    from pharos.errors import PharosError
    from pharos.spec.model import DataSpec

    outcome = Outcome()
    (folder / "good.jsonl").write_text(json.dumps(ROWS[0]))
    for number in range(num_files):
        draw = random.Random(f"{seed}-{number}")
        name, content, damage = damaged_file(draw)
        file = folder / f"{number}-{name}"
        file.write_bytes(content)
        bad_rows = draw.choice((0, 0, 0, 2, 10**6))
        spec = DataSpec(train=file.name, eval="good.jsonl", test="good.jsonl", max_bad_rows=bad_rows, long_rows="skip")
        verb = prepare if draw.random() < 0.5 else data_facts
        started = time.perf_counter()
        try:
            with time_limit(LIMIT_S):
                verb(
                    spec,
                    root=folder,
                    tokenizer_dir=tokenizer_dir,
                    tokenizer_digest="fuzz",
                    cache_dir=folder / "prepared",
                )
            outcome.counts[f"{damage}: read"] += 1
        except PharosError as error:
            outcome.counts[f"{damage}: refused"] += 1
            wrong = missing_place(error.message, file.name)
            if wrong:
                outcome.failures.append(f"file {number}, {damage}: {wrong}\n    {error.message[:500]}")
            error.message.encode()  # half of a surrogate pair in a message could not be printed
        except Exception:  # whatever it is, it is the finding
            outcome.failures.append(f"file {number}, {damage}:\n{traceback.format_exc()[-2000:]}")
        outcome.slowest = max(outcome.slowest, (time.perf_counter() - started, f"file {number}, {damage}"))
        file.unlink()
    return outcome


def missing_place(message: str, name: str) -> str | None:
    """What a report of a refused file lacks: the name of the file, or a row or byte of it."""
    if message.startswith("data.") and ("rows; split by content" in message or "rows were skipped" in message):
        return None  # a finding about all rows together: too few of them, or none that can be trained on
    for line in message.splitlines():
        if line.startswith(("... and", "data.max_length=")) or "data.max_bad_rows=" in line:
            continue
        if name not in line:
            return f"a line that does not name {name}"
        if not any(re.search(re.escape(name) + ".*" + place, line) for place in PLACES):
            return "a line without a place"
    return None


def damaged_file(draw: random.Random) -> tuple[str, bytes, str]:
    """The name of a file, its bytes, and what was done to them."""
    name, content = whole_file(draw)
    damage = draw.choice(tuple(MUTATIONS))
    if damage == "wrong types":
        name, content = whole_file(draw, rows=[odd_row(draw) for _ in range(draw.randint(1, 8))])
    else:
        content = MUTATIONS[damage](content, draw)
    return name, content, f"{damage} of {name.partition('.')[2]}"


def whole_file(draw: random.Random, rows: list[Any] | None = None) -> tuple[str, bytes]:
    """A file of one of the kinds that are read, with rows of one form."""
    form = draw.choice(ROWS)
    rows = [form] * draw.choice((1, 3, 40, 200)) if rows is None else rows
    kind = draw.choice(("jsonl", "jsonl", "json", "json", "csv", "tsv", "jsonl.gz", "jsonl.zst", "parquet"))
    if kind in ("csv", "tsv", "parquet") and not all(isinstance(row, dict) for row in rows):
        kind = "json"
    if kind == "json":
        return "rows.json", json.dumps(rows, ensure_ascii=draw.random() < 0.5, indent=draw.choice((None, 1))).encode(
            errors="surrogatepass"
        )
    if kind in ("csv", "tsv"):
        return f"rows.{kind}", _table(rows, "," if kind == "csv" else "\t")
    if kind == "parquet":
        return "rows.parquet", _parquet(form, len(rows))
    lines = "".join(json.dumps(row, ensure_ascii=draw.random() < 0.5) + "\n" for row in rows).encode(
        errors="surrogatepass"
    )
    if kind == "jsonl.zst":
        import pyarrow

        return f"rows.{kind}", pyarrow.compress(lines, "zstd", asbytes=True)
    return f"rows.{kind}", gzip.compress(lines) if kind == "jsonl.gz" else lines


def odd_row(draw: random.Random) -> Any:
    """A row with a value of a wrong type in some place, or no row at all."""
    row = json.loads(json.dumps(draw.choice(ROWS)))
    if draw.random() < 0.2:
        return draw.choice(ODD_VALUES)
    holder: Any = row
    while True:
        key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
        if isinstance(holder[key], dict | list) and holder[key] and draw.random() < 0.7:
            holder = holder[key]
            continue
        holder[key] = draw.choice(ODD_VALUES)
        return row


def _table(rows: list[Any], delimiter: str) -> bytes:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(rows[0] or ["question"])
    writer.writerows([str(value) for value in row.values()] for row in rows)
    return text.getvalue().encode(errors="surrogatepass")


def _parquet(form: dict[str, Any], num_rows: int) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist([form] * num_rows), sink)
    return sink.getvalue().to_pybytes()


def _truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _flip_bits(content: bytes, draw: random.Random) -> bytes:
    flipped = bytearray(content)
    for _ in range(draw.choice((1, 4, 60))):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _insert(what: Callable[[random.Random], bytes]) -> Mutation:
    def mutate(content: bytes, draw: random.Random) -> bytes:
        at = draw.randrange(len(content) + 1)
        return content[:at] + what(draw) + content[at:]

    return mutate


def _shuffle(content: bytes, draw: random.Random) -> bytes:
    size = draw.choice((1, 7, 64))
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    draw.shuffle(pieces)
    return b"".join(pieces)


def _nest(draw: random.Random) -> bytes:
    opening = draw.choice((b"[", b'{"a":'))
    return opening * draw.choice((50, 900, 5_000, 100_000)) + b"1"


def _huge(draw: random.Random) -> bytes:
    return draw.choice((b"x", b'"', b"\\", b"1", b" ")) * (2_000_000 if draw.random() < 0.1 else 100_000)


MUTATIONS: dict[str, Mutation] = {
    "wrong types": lambda content, draw: content,
    "nothing": lambda content, draw: content,
    "truncation": _truncate,
    "bit flips": _flip_bits,
    "NUL": _insert(lambda draw: b"\0" * draw.choice((1, 2, 500))),
    "huge line": _insert(
        lambda draw: draw.choice((b"x", b'"', b"\\", b"1", b" ")) * draw.choice((*[10**5] * 9, 2 * 10**6))
    ),
    "deep nesting": _insert(_nest),
    "invalid UTF-8": _insert(lambda draw: draw.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"))),
    "lone surrogate": _insert(lambda draw: draw.choice((b"\\ud83d", b"\\udc00\\ud83d", b'"\\ud800"'))),
    "shuffled bytes": _shuffle,
    "empty": lambda content, draw: draw.choice((b"", b"\n \n", b"[]", b"\xef\xbb\xbf", b"null", b"{}", b"[", b"]")),
    "byte order": lambda content, draw: draw.choice((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf" * 2)) + content,
}


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds."""

    def give_up(number: int, frame: Any) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/data_fuzz.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "platform")]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pharos-fuzz-") as folder:
        from pharos.model.tiny_tokenizer import ensure_tiny_tokenizer

        tokenizer_dir = ensure_tiny_tokenizer(Path(folder) / "tokenizer")
        outcome = fuzz(Path(folder), tokenizer_dir=tokenizer_dir, num_files=arguments.files, seed=arguments.seed)
    damages = Counter[str]()
    for what, count in outcome.counts.items():
        damages[f"{what.partition(' of ')[0]}: {what.rpartition(': ')[2]}"] += count
    for what, count in sorted(damages.items()):
        print(f"{count:7,}  {what}")
    for failure in outcome.failures[:20]:
        print(f"FAILED {failure}")
    seconds = time.perf_counter() - started
    slowest_s, slowest = outcome.slowest
    print(f"{arguments.files:,} files in {seconds:.0f} s, the slowest {slowest_s:.2f} s ({slowest})", end="; ")
    print(f"{len(outcome.failures):,} crashed, hung or were refused without a place")
    sys.exit(1 if outcome.failures else 0)


if __name__ == "__main__":
    main()
