"""Every benchmark that does not start Ray runs in its cheapest form, so that none of them can rot unseen."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.reporting import Options, show, write


def measured(name: str, directory: Path, **options: Any) -> dict[str, Any]:
    """What the benchmark writes, once it has been printed as well."""
    report = importlib.import_module(f"tests.benchmarks.{name}").run(Options(smoke=True, **options))
    show(name, report)
    return json.loads(write(name, report, directory=directory, command="python tests/benchmarks").read_text())


def assert_whole(record: dict[str, Any]) -> None:
    assert {"benchmark", "command", "machine", "versions", "settings", "tables", "quality", "targets", "notes"} == set(
        record
    )
    assert {"cpu", "cores", "memory_gb", "gpu", "torch_threads", "load_average"} <= set(record["machine"])
    assert all(record["versions"].values())
    for table in record["tables"]:
        assert table["title"]
        assert len({tuple(row) for row in table["rows"]}) == 1, "rows of one table have the same columns"
    for target in record["targets"]:
        assert math.isfinite(target["measured"])


def test_checkpoints_are_timed_on_a_disk_and_at_a_store(tmp_path: Path) -> None:
    record = measured("checkpoints", tmp_path)
    assert_whole(record)
    assert [set(row) >= {"flushed s", "unflushed s", "store s"} for row in record["tables"][0]["rows"]] == [True]


def test_fusion_times_every_way_and_finds_the_same_trials(tmp_path: Path) -> None:
    record = measured("fusion", tmp_path)
    assert_whole(record)
    assert [set(table["rows"][0]) >= {"hidden", "K=1", "K=2"} for table in record["tables"][:4]] == [True] * 4
    assert record["quality"]["largest difference of final losses, fused and alone"] < 1e-5
    assert record["quality"]["largest difference of final losses, raw PEFT and alone"] < 1e-5
    assert record["quality"]["same winner"] is True
    assert record["quality"]["regret"] == 0


def test_single_times_both_loops_on_the_same_losses(tmp_path: Path) -> None:
    record = measured("single", tmp_path)
    assert_whole(record)
    assert record["tables"][0]["rows"][0]["ratio"] > 0
    assert record["quality"]["largest difference of final losses"] < 1e-5


def test_packing_times_both_ways_on_the_same_losses(tmp_path: Path) -> None:
    record = measured("packing", tmp_path)
    assert_whole(record)
    [row] = record["tables"][0]["rows"]
    assert row["packs a clock"] < row["rows a clock"]
    assert row["fill"] > row["share not pads"]
    assert row["ratio"] > 0
    assert record["quality"]["largest difference of a loss over packs and over rows"] < 1e-5


def test_gpu_runs_its_tiny_shape_on_a_cpu(tmp_path: Path) -> None:
    record = measured("gpu", tmp_path, shape="tiny")
    assert_whole(record)
    assert [row["K"] for row in record["tables"][0]["rows"]] == [1, 4, 8]
    assert all(row["tokens/s"] > 0 for row in record["tables"][0]["rows"])
    assert record["quality"]["largest difference of final losses from the PEFT loop"] < 0.05  # bfloat16


def test_data_prepare_makes_the_same_tokens_as_datasets(tmp_path: Path) -> None:
    record = measured("data_prepare", tmp_path)
    assert_whole(record)
    assert record["quality"]["same number of rows, tokens and trained tokens"] is True


def test_merge_is_pefts_merge_and_reaches_its_targets_in_small(tmp_path: Path) -> None:
    record = measured("merge", tmp_path)
    assert_whole(record)
    assert record["quality"]["largest difference from PEFT's merge of sampled weights, in spacings of bfloat16"] <= 1
    assert {target["what"]: target["met"] for target in record["targets"]}["logits against base + adapter, fp32"]
    assert record["tables"][0]["rows"][0]["peak GB"] < 1.6


def test_evaluation_gives_the_answers_and_losses_of_plain_transformers(tmp_path: Path) -> None:
    record = measured("evaluation", tmp_path)
    assert_whole(record)
    assert record["quality"]["same answers"] is True
    assert record["quality"]["largest difference of a loss"] < 1e-5
    assert all(row["ratio"] > 0 for table in record["tables"] for row in table["rows"])


def test_metrics_tells_what_measuring_costs(tmp_path: Path) -> None:
    record = measured("metrics", tmp_path)
    assert_whole(record)
    [row] = record["tables"][1]["rows"]
    assert 0 < row["every clock us"] < row["clock us"]
    assert row["% of a clock"] > 0


@pytest.mark.slow
def test_compare_finds_the_same_trials_in_the_log_and_in_mlflow(tmp_path: Path) -> None:
    record = measured("compare", tmp_path)
    assert_whole(record)
    assert record["quality"]["same leaderboard from the log and from MLflow"] is True
    assert all(row["median"] > 0 for row in record["tables"][0]["rows"])


@pytest.mark.slow
def test_zero3_gathers_as_much_for_eight_seats_as_for_one(tmp_path: Path) -> None:
    record = measured("zero3", tmp_path)
    assert_whole(record)
    (row,) = record["tables"][0]["rows"]
    assert row["MB gathered K=1"] == row["MB gathered K=8"] > 0
    assert all(target["met"] for target in record["targets"])


def test_packs_are_timed_and_their_fill_is_told(tmp_path: Path) -> None:
    record = measured("packs", tmp_path)
    assert_whole(record)
    assert all(0.8 < row["fill by best-fit alone"] <= row["fill"] <= 1 for row in record["tables"][0]["rows"])


def test_the_fill_of_real_rows_stands_beside_the_best_possible(tmp_path: Path) -> None:
    words = [f"word{n % 97} " * (n % 41 + 3) for n in range(120)]
    questions = [json.dumps({"question": text, "answer": text}) for text in words]
    (tmp_path / "gsm8k_train.jsonl").write_text("\n".join(questions))
    turns = [[{"value": text}, {"value": text}] for text in words]
    (tmp_path / "conversations_fastchat.json").write_text(json.dumps([{"conversations": turn} for turn in turns]))
    record = measured("packs", tmp_path, data=tmp_path)
    assert_whole(record)
    assert len(record["tables"][1]["rows"]) == 8
    for row in record["tables"][1]["rows"]:
        assert max(row["by best-fit"], row["by exact filling"]) == row["fill"] <= row["best possible"] <= 1
