"""submit, status, logs, stop and resume as a person types them, without a cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.support.command_line import Pharos
from tests.support.many_trials import many_trials, many_trials_spec

from pharos.plan.events import SweepEnded, SweepStarted
from pharos.plan.paths import SweepPaths
from pharos.sweep.in_job import JOB_CONFIG
from pharos.sweep.paths import sweep_lock
from pharos.track.sweeps import log_of

AWAY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """`ended`, which has; `broken`, whose log just stops."""
    storage = tmp_path / "results"
    for name in ("ended", "broken"):
        for batch in many_trials(many_trials_spec(8, name=name, num_steps=16)):
            events = [replace(e, root=str(tmp_path)) if isinstance(e, SweepStarted) else e for e in batch]
            log_of(storage / name).append([e for e in events if name == "ended" or not isinstance(e, SweepEnded)])
    return storage


def test_status_lists_the_sweeps_of_a_storage(storage: Path, pharos: Pharos) -> None:
    with sweep_lock(SweepPaths(storage, "broken")):
        code, out, err = pharos("status", "--storage", storage)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split() for line in out.splitlines()[1:]}
    assert rows["ended"][1:3] == ["COMPLETED", "8/8"]
    assert rows["broken"][1:3] == ["RUNNING", "8/8"]
    assert "process" in out


def test_status_of_one_says_how_its_trials_are_and_programs_get_all_of_it(storage: Path, pharos: Pharos) -> None:
    code, out, _ = pharos("status", "broken", "--storage", storage)
    assert code == 0
    assert out.startswith("broken  INTERRUPTED")
    assert "8 of 8 have ended: " in out
    assert "eval_loss" in out
    code, out, _ = pharos("status", "broken", "--storage", storage, "--json")
    [told] = json.loads(out)
    assert (told["sweep"], told["state"], told["status"]["num_trials"]) == ("broken", "INTERRUPTED", 8)
    assert sum(told["status"]["trials"].values()) == 8


def test_logs_says_where_they_are(storage: Path, pharos: Pharos) -> None:
    code, out, _ = pharos("logs", "ended", "--storage", storage)
    assert code == 0
    assert str(storage / "ended" / "events") in out


@pytest.mark.parametrize("verb", ["status", "logs", "stop", "resume"])
def test_an_unknown_name_is_one_message(storage: Path, pharos: Pharos, verb: str) -> None:
    code, _, err = pharos(verb, "brokn", "--storage", storage)
    assert code == 2
    assert "sweep=brokn" in err
    assert "Did you mean broken?" in err
    assert "Traceback" not in err


def test_what_does_not_run_is_not_stopped(storage: Path, pharos: Pharos) -> None:
    code, _, err = pharos("stop", "ended", "--storage", storage)
    assert code == 2
    assert "name=ended is not being run: there is nothing to stop" in err


@pytest.mark.parametrize("verb", ["status", "logs", "stop", "resume"])
def test_a_cluster_that_is_away_is_one_message(pharos: Pharos, verb: str) -> None:
    code, _, err = pharos(verb, "small", "--address", AWAY)
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith(f"error: --address={AWAY} does not answer")


def write_spec(folder: Path, **sections: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text('{"prompt": "on?", "completion": "on"}\n')
    fields = {"name": "small", "base": "builtin:tiny", "data": {"train": "rows.jsonl"}} | sections
    (folder / "sweep.yaml").write_text(yaml.safe_dump(fields))
    return folder / "sweep.yaml"


def test_a_relative_storage_is_named_where_it_was_written(tmp_path: Path, pharos: Pharos) -> None:
    file = write_spec(tmp_path, storage="my-results")
    code, _, err = pharos("submit", file, "--address", AWAY)
    assert code == 2
    assert f"{file}:5: storage=my-results is relative" in err
    code, _, err = pharos("submit", file, "--address", AWAY, "--storage", "other")
    assert "error: storage=other is relative" in err


def test_a_job_leaves_the_directory_that_ray_may_take_away(
    tmp_path: Path, pharos: Pharos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB_CONFIG, "{}")
    monkeypatch.chdir(write_spec(tmp_path / "of-the-job").parent)
    ran: list[tuple[Path, Path]] = []
    monkeypatch.setattr("pharos.cli.sweeps.run_spec", lambda spec, root, **_: ran.append((root, Path.cwd())))
    storage = tmp_path / "results"
    assert pharos("sweep", "sweep.yaml", "--storage", storage)[0] == 0
    kept = storage / "small" / "submitted"
    assert ran == [(kept, kept)]
    assert (kept / "rows.jsonl").is_file()


def test_submit_wants_an_address(tmp_path: Path, pharos: Pharos) -> None:
    code, _, err = pharos("submit", write_spec(tmp_path), "--storage", "/shared/results")
    assert code == 2
    assert "--address is missing" in err


def test_mistakes_of_the_file_come_before_the_cluster(tmp_path: Path, pharos: Pharos) -> None:
    file = write_spec(tmp_path, lora={"rank": 8})
    code, _, err = pharos("submit", file, "--address", AWAY, "--storage", "/shared/results")
    assert code == 2
    assert "lora.rank" in err
    assert "does not answer" not in err
