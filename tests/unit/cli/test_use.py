"""The verbs that use a model: what they print, what they leave, what a mistake says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from tests.support import small_sweep
from tests.support.command_line import Pharos, in_this_process


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sweep.write_base(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def pharos(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Pharos:
    """Run a command in this process, where `model` and `rows.jsonl` lie: its exit code, stdout and stderr."""
    (tmp_path / "model").symlink_to(model_dir)
    small_sweep.write_rows(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)

    return in_this_process(monkeypatch, capsys)


def test_eval_prints_a_table_and_leaves_its_files(pharos: Pharos, tmp_path: Path) -> None:
    code, out, _ = pharos("eval", "model", "rows.jsonl", "--max-rows", "9", "--max-new-tokens", "3")
    assert code == 0
    assert out.startswith("model  on 9 rows of rows.jsonl\n")
    assert "token_accuracy" in out
    assert "sacrebleu, tokenizer 13a" in out
    folder = tmp_path / "pharos-results" / "eval" / "model-rows.jsonl"
    assert sorted(path.name for path in folder.iterdir()) == ["generations.jsonl", "metrics.json"]
    assert "answers     pharos-results/eval/model-rows.jsonl/generations.jsonl" in out
    assert out.endswith("talk to it  pharos chat model\n")


def test_eval_as_json_is_one_object(pharos: Pharos, tmp_path: Path) -> None:
    code, out, _ = pharos(
        "eval", "model", "rows.jsonl", "--json", "--no-generate", "--output", "figures", "--max-length", "30"
    )
    record = json.loads(out)
    assert code == 0
    assert record["output"] == "figures"
    assert record["num_rows"] + record["num_skipped_rows"] == 84
    assert set(record["metrics"]) == {"loss", "perplexity", "token_accuracy"}
    assert json.loads((tmp_path / "figures" / "metrics.json").read_text())["metrics"] == record["metrics"]


def test_chat_answers_the_lines_of_a_pipe(pharos: Pharos) -> None:
    lines = "turn the lamp on\n/reset\nq\nnever\n"
    code, out, _ = pharos("chat", "model", "--max-new-tokens", "4", stdin=lines)
    shown = out.splitlines()
    assert code == 0
    assert shown[:2] == ["model: q quits, /help says more.", "> turn the lamp on"]
    assert shown[-3:] == ["> /reset", "Forgotten.", "> q"]
    assert "never" not in out


def test_chat_with_two_models_names_who_speaks(pharos: Pharos) -> None:
    code, out, _ = pharos("chat", "model", "--against", "./model", "--max-new-tokens", "4", stdin="on\n")
    assert code == 0
    assert out.startswith("model and ./model: q quits")
    first, second = out.split("> on\nmodel:\n")[1].split("./model:\n")
    assert first.strip() == second.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "modle", "rows.jsonl"), "error: modle: no such model. Write NAME@ALIAS, NAME/3, SWEEP-0007"),
        (("eval", "model", "row.jsonl"), "error: DATA='row.jsonl': no such file in .* Did you mean rows.jsonl?"),
        (("eval", "model", "gone:test"), "error: DATA=gone:test: there is no sweep gone in"),
        (("eval", "model", "rows.jsonl", "--template", "none"), "error: --template none: .*none is not there"),
        (("eval", "docker@candidate", "rows.jsonl"), "error: tracking: there is no MLflow store at sqlite"),
        (("chat", "docker/3", "--tracking-uri", "http://127.0.0.1:9"), "error: tracking: http://127.0.0.1:9 cannot"),
        (("chat", "model", "--against", "small-0003"), "error: small-0003: no such model."),
    ],
)
def test_a_mistake_gives_one_message_and_leaves_nothing(
    pharos: Pharos, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    code, out, err = pharos(*arguments)
    assert (code, out) == (2, "")
    assert re.match(message, err.strip()), err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == before
