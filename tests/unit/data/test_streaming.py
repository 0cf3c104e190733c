"""Rows that stream through worker processes are those of one process; bad rows are left out only as far as allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pharos.data import readers, workers
from pharos.data.facts import data_facts
from pharos.data.prepare import PreparedData, load_prepared, open_prompts, open_split, prepare
from pharos.data.split import HELD_OUT
from pharos.errors import DataError, PharosError
from pharos.plan.exchange import Split
from pharos.spec.model import DataSpec, WeightedSource

SPLITS: tuple[Split, ...] = ("train", "eval", "test")
SPEC = DataSpec(train="train.jsonl", eval_fraction=0.2, test_fraction=0.2, max_length=64)
ROOT = Path(__file__).parents[3]


def questions(count: int, first: int = 0) -> list[dict[str, str]]:
    numbers = range(first, first + count)
    return [{"question": f"What is {number}?", "answer": f"It is {number}" + "!" * (number % 7)} for number in numbers]


def tokens_of(prepared: PreparedData, split: Split = "train") -> list[list[int]]:
    rows = open_split(prepared.directory, split)
    return [rows.row(index)[0].tolist() for index in range(len(rows))]


def bytes_of(prepared: PreparedData) -> dict[str, bytes]:
    """Of the files but the prompts, whose batches are those of the chunks."""
    return {file.name: file.read_bytes() for file in prepared.directory.iterdir() if "prompts" not in file.name}


def prompts_of(prepared: PreparedData) -> list[tuple[list[list[int]], list[str]]]:
    opened = [open_prompts(prepared.directory, split) for split in HELD_OUT]
    return [([prompt.tolist() for prompt in prompts], references) for prompts, references in opened]


def test_worker_processes_write_the_same_bytes_as_one_process(
    arguments: dict, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = questions(600)
    rows[100]["answer"] = "far " * 100
    rows[300]["answer"] = ""
    write_rows("train.jsonl", rows)
    spec = SPEC.model_copy(update={"long_rows": "skip", "max_bad_rows": 1, "max_train_rows": 250})
    alone = prepare(spec, **arguments)
    monkeypatch.setattr(readers, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    together = prepare(spec, **(arguments | {"cache_dir": arguments["root"] / "other"}))
    assert bytes_of(together) == bytes_of(alone)
    assert prompts_of(together) == prompts_of(alone)
    assert len(skipped_of(alone)) == 2


def skipped_of(prepared: PreparedData) -> list[str]:
    return (prepared.directory / "skipped.jsonl").read_text().splitlines()


def test_a_worker_that_is_killed_is_said_so(
    arguments: dict, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows("train.jsonl", questions(600))
    monkeypatch.setattr(readers, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    monkeypatch.setattr(workers, "_make_part", _die)
    with pytest.raises(PharosError, match="ended from outside, most likely for want of memory"):
        prepare(SPEC, **arguments)
    assert list(arguments["cache_dir"].iterdir()) == []


def _die(task: object) -> None:
    import os

    os._exit(9)


def test_two_processes_that_prepare_at_once_leave_one_whole_directory(
    arguments: dict, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", questions(400))
    program = f"""
import sys
from pathlib import Path
from pharos.data.split import HELD_OUT
from pharos.data.prepare import prepare
from pharos.spec.model import DataSpec
sys.stdin.readline()
root = Path({str(arguments["root"])!r})
spec = DataSpec.model_validate_json({SPEC.model_dump_json()!r})
print(prepare(spec, root=root, tokenizer_dir=Path({str(arguments["tokenizer_dir"])!r}), tokenizer_digest="0123",
              cache_dir=root / "cache").directory)
"""
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {"PYTHONPATH": str(ROOT / "platform"), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    directories = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert directories == {str(path) for path in arguments["cache_dir"].iterdir()}
    [directory] = directories
    assert sum(len(open_split(Path(directory), split)) for split in SPLITS) == 400
    assert load_prepared(Path(directory)) == prepare(SPEC, **arguments)


def test_bad_rows_up_to_the_limit_are_left_out_named_and_counted(
    arguments: dict, write_rows: Callable[..., Path]
) -> None:
    path = write_rows("train.jsonl", questions(100))
    lines = path.read_text().splitlines()
    lines[10], lines[20], lines[30] = '{"question": "Where?"}', "{", '{"question": "", "answer": ""}'
    path.write_text("\n".join(lines))
    few = SPEC.model_copy(update={"max_bad_rows": 2})
    for verb in (prepare, data_facts):
        with pytest.raises(DataError) as error:
            verb(few, **arguments)
        assert error.value.message.splitlines() == [
            "3 rows are in error, and data.max_bad_rows=2 lets so many be left out.",
            "train.jsonl:11: 'answer' is missing; the first row has the form question/answer.",
            "train.jsonl:21:2: not JSON: Expecting property name enclosed in double quotes. Write one object a line.",
            "train.jsonl:31: question is empty.",
            "train.jsonl:31: answer is empty.",
        ]
    enough = SPEC.model_copy(update={"max_bad_rows": 3})
    prepared = prepare(enough, **arguments)
    assert sum(len(open_split(prepared.directory, split)) for split in SPLITS) == 97
    skipped = [json.loads(line) for line in skipped_of(prepared)]
    assert [line["row"] for line in skipped] == ["train.jsonl:11", "train.jsonl:21", "train.jsonl:31", "train.jsonl:31"]
    assert skipped[0]["reason"] == "train.jsonl:11: 'answer' is missing; the first row has the form question/answer."
    assert prepared.warnings == (
        "3 rows are in error and were left out, as data.max_bad_rows=3 lets them; "
        "skipped.jsonl beside the prepared data names them",
    )
    # The rows lie there now; a sweep that allows fewer bad rows must not take them.
    assert prepare(SPEC.model_copy(update={"max_bad_rows": 9}), **arguments) == prepared
    for verb in (prepare, data_facts):
        with pytest.raises(DataError, match="3 rows are in error"):
            verb(few, **arguments)


def test_a_file_that_cannot_be_read_on_is_no_bad_row(arguments: dict) -> None:
    (arguments["root"] / "train.json").write_text(json.dumps(questions(50))[:-20])
    spec = SPEC.model_copy(update={"train": "train.json", "max_bad_rows": 1000})
    with pytest.raises(DataError, match=r"^train.json:1:\d+: not JSON: "):
        prepare(spec, **arguments)


def test_the_digest_does_not_change_with_what_changes_no_token(
    arguments: dict, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", questions(100))
    write_rows("elsewhere/train.jsonl", questions(100))
    write_rows("eval.jsonl", questions(10, first=200))

    def digest(**changed: object) -> str:
        return prepare(SPEC.model_copy(update=changed), **arguments).digest

    assert digest(train="elsewhere/train.jsonl") == digest()
    assert digest(max_bad_rows=5) == digest()
    assert digest(template="tokenizer") == digest(template="auto")
    assert digest(eval="eval.jsonl", eval_fraction=0.3) == digest(eval="eval.jsonl")
    assert digest(eval_fraction=0.3) != digest()
    assert digest(packing=True) != digest()


def test_limits_take_the_first_rows_of_each_split(arguments: dict, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", questions(300))
    whole = prepare(SPEC, **arguments)
    limits = {"max_train_rows": 7, "max_eval_rows": 3, "max_test_rows": 2}
    cut = prepare(SPEC.model_copy(update=limits), **arguments)
    for split, limit in zip(SPLITS, (7, 3, 2), strict=True):
        assert tokens_of(cut, split) == tokens_of(whole, split)[:limit]
        assert len(tokens_of(cut, split)) == limit
    assert len(open_prompts(cut.directory)[0]) == 2


@pytest.mark.parametrize("packing", [False, True])
def test_mixed_sources_fill_an_epoch_by_their_weights(
    arguments: dict, write_rows: Callable[..., Path], packing: bool
) -> None:
    write_rows("a.jsonl", questions(30))
    write_rows("b.jsonl", questions(90, first=1000))
    sources = [WeightedSource(path="a.jsonl", weight=3), WeightedSource(path="b.jsonl", weight=1)]
    spec = DataSpec(train=sources, eval_fraction=0.2, test_fraction=0.2, max_length=64, packing=packing)
    plain = prepare(spec.model_copy(update={"train": ["a.jsonl", "b.jsonl"], "packing": False}), **arguments)
    mixed = prepare(spec, **arguments)
    owned = tokens_of(plain)
    rows = unpacked(mixed) if packing else tokens_of(mixed)
    copies = np.array([rows.count(row) for row in owned])
    num_of_a = len(tokens_of(prepare(spec.model_copy(update={"train": "a.jsonl", "packing": False}), **arguments)))
    assert copies.sum() == len(rows) == len(owned)
    assert copies[:num_of_a].sum() == pytest.approx(0.75 * len(owned), abs=1)
    assert np.ptp(copies[:num_of_a]) <= 1
    for split in ("eval", "test"):
        assert tokens_of(mixed, split) == tokens_of(plain, split)
    assert mixed.facts.mixture.startswith("a.jsonl 75% (each row ")
    assert mixed.facts.num_train_rows == len(owned)
    assert data_facts(spec, **(arguments | {"cache_dir": arguments["root"] / "none"})) == mixed.facts


def unpacked(prepared: PreparedData) -> list[list[int]]:
    rows = open_split(prepared.directory, "train")
    starts = [*np.flatnonzero(rows.positions == 0), len(rows.tokens)]
    assert not rows.trained[starts[:-1]].any()
    return [rows.tokens[start:end].tolist() for start, end in pairwise(starts)]


def test_the_facts_of_a_sample_keep_the_mixture(arguments: dict, write_rows: Callable[..., Path]) -> None:
    write_rows("a.jsonl", questions(200))
    write_rows("b.jsonl", questions(400, first=1000))
    sources = [WeightedSource(path="a.jsonl", weight=1), WeightedSource(path="b.jsonl", weight=1)]
    spec = DataSpec(train=sources, max_length=64)
    facts = data_facts(spec, **arguments, sample_rows=100)
    assert facts.estimated
    assert facts.mixture.startswith("a.jsonl 50% (each row 1.")
    assert facts.num_train_rows == prepare(spec, **arguments).facts.num_train_rows


def test_reckoning_the_facts_of_json_rows_loads_no_table_library(
    arguments: dict, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", questions(100))
    program = f"""
import sys
from pathlib import Path
from pharos.data.facts import data_facts
from pharos.spec.model import DataSpec
root = Path({str(arguments["root"])!r})
data_facts(DataSpec(train="train.jsonl"), root=root, tokenizer_dir=Path({str(arguments["tokenizer_dir"])!r}),
           tokenizer_digest="0", cache_dir=root)
print(sorted({{"pyarrow", "datasets", "fsspec", "pandas"}} & set(sys.modules)))
"""
    environment = {"PYTHONPATH": str(ROOT / "platform"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
