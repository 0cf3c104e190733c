"""Preparing short rows from a JSONL file: time against `datasets.map` with the same fast tokenizer, and memory.

Each way runs in a process of its own with as many workers as there are cores, from the file to what can be trained on.
`datasets.map` runs twice: doing the same (template, tokens, mask), and doing the least (pasted text, tokens alone).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.preparing import WAYS, write_rows
from tests.benchmarks.reporting import Options, Report, Table, Target

from pharos.model.tiny_tokenizer import ensure_tiny_tokenizer

ROOT = Path(__file__).parents[2]
NUM_ROWS = 1_000_000
SMOKE_ROWS = 5_000
PHAROS, SAME, BARE = WAYS


def run(options: Options) -> Report:
    num_rows = SMOKE_ROWS if options.smoke else NUM_ROWS
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as folder:
        tokenizer_dir = ensure_tiny_tokenizer(Path(folder))
        few = measure(PHAROS, num_rows // 10, tokenizer_dir, Path(folder))
        found = {way: measure(way, num_rows, tokenizer_dir, Path(folder)) for way in WAYS}
    times = [{"way": way, "rows": num_rows, **_time(found[way], num_rows)} for way in WAYS]
    memory = [
        {"way": PHAROS, "rows": num_rows // 10, **_memory(few)},
        *({"way": way, "rows": num_rows, **_memory(found[way])} for way in WAYS),
    ]
    peak, peak_of_few = (max(run["peak_mb"], run["peak_mb_of_a_child"]) for run in (found[PHAROS], few))
    return Report(
        settings={"rows": num_rows, "tokenizer": "of builtin:tiny, 2048 tokens", "processes": os.cpu_count()},
        tables=[Table(title="from a JSONL file to prepared rows", rows=times), Table(title="peak memory", rows=memory)],
        quality={
            "same number of rows, tokens and trained tokens": all(
                found[PHAROS][count] == found[SAME][count] for count in ("rows", "tokens", "trained")
            ),
            "tokens of a row on average": found[PHAROS]["tokens"] / num_rows,
            "time of datasets.map without template and mask / ours": found[BARE]["seconds"] / found[PHAROS]["seconds"],
        },
        targets=[
            Target(
                what="time of datasets.map / ours, the same work",
                measured=found[SAME]["seconds"] / found[PHAROS]["seconds"],
                limit=1.0,
            ),
            Target(
                what=f"peak memory, {num_rows:,} rows / {num_rows // 10:,} rows",
                measured=peak / peak_of_few,
                limit=1.5,
                at_most=True,
            ),
        ],
        notes=["datasets.map does not check rows, divide them or name what is wrong with them; preparing does."],
    )


def measure(way: str, num_rows: int, tokenizer_dir: Path, folder: Path) -> dict[str, Any]:
    """What one way took for so many rows, in a process of its own."""
    file = folder / f"{num_rows}.jsonl"
    if not file.exists():
        write_rows(file, num_rows)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [sys.executable, "-m", "tests.benchmarks.preparing", way, str(file), str(tokenizer_dir), work]
        environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _time(found: dict[str, Any], num_rows: int) -> dict[str, float]:
    return {"seconds": found["seconds"], "rows/s": num_rows / found["seconds"]}


def _memory(found: dict[str, Any]) -> dict[str, float]:
    return {"MB": found["peak_mb"], "MB of a worker": found["peak_mb_of_a_child"]}
