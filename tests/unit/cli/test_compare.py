"""`pharos compare` and `pharos ui` as a person types them: what they print, refuse and leave unloaded."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.command_line import Pharos
from tests.support.many_trials import many_trials, many_trials_spec

from pharos.plan.comparison_rows import COLUMNS
from pharos.track.sweeps import log_of

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "ray", "mlflow", "transformers", "deepspeed", "peft", "accelerate", "pandas", "sklearn")
NUM_TRIALS = 24


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished sweeps, first and second."""
    storage = tmp_path_factory.mktemp("results")
    for name, num_trials in (("first", NUM_TRIALS), ("second", 8)):
        for batch in many_trials(many_trials_spec(num_trials, name=name, num_steps=16)):
            log_of(storage / name).append(batch)
    return storage


def test_the_best_come_first_with_the_baseline_and_what_to_type_next(storage: Path, pharos: Pharos) -> None:
    code, out, err = pharos("compare", "first", "--storage", storage)
    assert (code, err) == (0, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0].startswith("first  COMPLETED: all trials are done, 24 trials  ")
    assert lines[2].split()[:3] == ["rank", "trial", "eval_loss"]
    ranks = [line.split()[0] for line in lines[3:23]]
    assert ranks == [str(rank) for rank in range(1, 21)]
    assert sum(" baseline: " in line for line in lines) == 1
    assert "optim.learning_rate" in out.split("what sets the best trials apart")[1]
    steps = [line for line in lines if line.startswith("next:")]
    assert [step.split()[2] for step in steps] == ["report", "ui"]
    assert steps[1].startswith(f"next:    pharos ui --storage {storage}")


def test_several_sweeps_share_one_leaderboard(storage: Path, pharos: Pharos) -> None:
    code, out, _ = pharos("compare", "first", str(storage / "second"), "--storage", storage, "--top", 3)
    assert code == 0
    rows = [line.split()[:3] for line in out.splitlines() if re.match(r" *\d+  ", line)]
    assert [row[0] for row in rows[:3]] == ["1", "2", "3"]
    assert sum(row[2] == "0000" for row in rows) == 2
    assert "what sets the best trials apart in second" in out


def test_json_and_csv_hold_every_trial_unless_fewer_are_wanted(storage: Path, pharos: Pharos) -> None:
    code, out, err = pharos("compare", "first", "--storage", storage, "--json")
    told = json.loads(out)
    assert (code, err, len(told["trials"])) == (0, "", NUM_TRIALS)
    assert sum(told["sweeps"][0]["importance"].values()) == pytest.approx(1)
    code, out, err = pharos(
        "compare", "first", "--storage", storage, "--csv", "--filter", "lora.r>=16", "--sort", "-lora.r"
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert set(COLUMNS) < set(rows[0])
    assert [int(row["lora.r"]) for row in rows] == sorted((int(row["lora.r"]) for row in rows), reverse=True)
    assert {row["lora.r"] for row in rows} == {"16", "32"}
    assert len(list(csv.DictReader(io.StringIO(pharos("compare", "first", "--storage", storage, "--csv")[1])))) == 24


def test_the_readmes_commands_run(tmp_path: Path, pharos: Pharos, monkeypatch: pytest.MonkeyPatch) -> None:
    for batch in many_trials(many_trials_spec(8, name="quickstart", num_steps=16)):
        log_of(tmp_path / "pharos-results" / "quickstart").append(batch)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^pharos compare (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        code, out, err = pharos("compare", *shlex.split(command))
        assert (code, err) == (0, ""), command
        assert "0000" in out or "--filter" in command


def test_a_sweep_that_is_named_twice_is_read_once(storage: Path, pharos: Pharos) -> None:
    once = pharos("compare", "first", "--storage", storage)
    assert pharos("compare", "first", "first", str(storage / "first"), "--storage", storage) == once


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frist"], r"error: sweep=frist: no sweep of this name lies in .*Did you mean first\?"),
        (
            ["first", "--filter", "lora.q=1"],
            r"error: --filter 'lora.q=1': there is no field lora.q. Did you mean lora.r\?",
        ),
        (["first", "--sort", "-best"], r"error: --sort -best: there is no field best. Did you mean best_"),
        (["first", "--json", "--csv"], r"error: --json and --csv are two forms of the same"),
        (["first", "--tracking-uri", "sqlite:////nowhere/m.db"], r"error: .*there is no MLflow store at sqlite"),
        (["first", "--tracking-uri", "http://127.0.0.1:1"], r"error: tracking: http://127.0.0.1:1 cannot be used"),
    ],
)
def test_what_cannot_be_is_one_message_and_exit_code_2(
    storage: Path, pharos: Pharos, arguments: list[str], message: str
) -> None:
    code, out, err = pharos("compare", *arguments, "--storage", storage)
    assert (code, out) == (2, "")
    assert re.match(message, " ".join(err.split())), err
    assert "Traceback" not in err


def test_a_log_is_compared_without_any_heavy_library(storage: Path) -> None:
    program = f"""
import sys
sys.argv = ["pharos", "compare", "first", "--storage", {str(storage)!r}]
try:
    main()
except SystemExit as exit:
    assert not exit.code, exit.code
print("loaded:", *sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "what sets the best trials apart" in run.stdout
    assert run.stderr.split() == ["loaded:"]


def test_ui_refuses_a_storage_without_a_store_and_a_port_in_use(storage: Path, pharos: Pharos, tmp_path: Path) -> None:
    code, out, err = pharos("ui", "--storage", storage)
    assert (code, out) == (2, "")
    missing = f"there is no MLflow store at sqlite:///{storage / 'mlflow.db'}: no sweep has run there."
    assert missing in " ".join(err.split())
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\0")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        code, out, err = pharos("ui", "--storage", tmp_path, "--port", port)
    assert (code, out) == (2, "")
    assert re.match(rf"error: --port {port} cannot be used: address already in use. Stop", " ".join(err.split()))


def test_ui_of_a_server_says_where_it_is_or_that_it_is_away(pharos: Pharos) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code, out, err = pharos("ui", "--tracking-uri", address)
    assert (code, out) == (2, "")
    assert f"{address} cannot be used: Connection refused" in " ".join(err.split())


def test_ui_leaves_signals_as_they_were_when_it_is_refused(pharos: Pharos, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    pharos("ui", "--storage", tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
