"""Sweeps as jobs: what a job is given, how it is named and found again, what a person hears who waits for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml

from pharos.cli import app
from pharos.cli.options import load
from pharos.errors import ClusterError, StorageError, TrackingError
from pharos.plan.sweep_status import SweepStatus, status_line
from pharos.spec.load import load_spec
from pharos.sweep import jobs
from pharos.sweep.jobs import SweepJob

STORAGE = "/shared/results"


@dataclass
class FakeApi:
    """A cluster's jobs in memory. held: files that travelled, by name. states: what a job is at each look."""

    address: str = "http://head:8265"
    submitted: list[dict[str, Any]] = field(default_factory=list)
    held: list[dict[str, Path]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    states: dict[str, Iterator[str]] = field(default_factory=dict)
    logs: dict[str, Iterator[str]] = field(default_factory=dict)
    now: dict[str, str] = field(default_factory=dict)

    def submit(self, **request: Any) -> None:
        folders = [*request["runtime_env"]["py_modules"], request["runtime_env"].get("working_dir")]
        for folder in filter(None, folders):
            paths = (path for path in Path(folder).rglob("*") if path.is_file())
            self.held.append({str(path.relative_to(folder)): path for path in paths})
            if folder not in request["runtime_env"]["py_modules"]:
                self.texts += [path.read_text() for path in self.held[-1].values()]
        self.submitted.append(request)
        self.now[request["submission_id"]] = "PENDING"

    def jobs(self) -> list[Any]:
        foreign = SimpleNamespace(submission_id="raysubmit_1", metadata={}, start_time=1)
        return [foreign, *(self.job(request["submission_id"]) for request in self.submitted)]

    def job(self, submission_id: str) -> Any:
        self.now[submission_id] = next(self.states.get(submission_id, iter(())), self.now[submission_id])
        [request] = [each for each in self.submitted if each["submission_id"] == submission_id]
        return SimpleNamespace(
            submission_id=submission_id,
            metadata=request["metadata"],
            status=self.now[submission_id],
            start_time=1_700_000_000_000,
            end_time=None,
            driver_exit_code=2 if self.now[submission_id] == "FAILED" else None,
        )

    def log(self, submission_id: str) -> str:
        return next(self.logs.get(submission_id, iter(())), "")


def test_a_job_is_given_longer_than_its_driver_needs() -> None:
    from pharos.sweep.driver import CLOSING_PATIENCE_S, STOPPING_PATIENCE_S

    assert jobs.STOP_WAIT_S > 2 * STOPPING_PATIENCE_S + CLOSING_PATIENCE_S  # its trials saved, then its pools gone


def submit(api: FakeApi, path: Path, **options: Any) -> SweepJob:
    overrides = options.pop("overrides", [])
    storage = options.pop("storage", STORAGE)
    spec = load_spec(path, overrides).model_copy(update={"storage": storage})
    return jobs.submit(api, spec, path, tracking_uri=options.pop("tracking_uri", None), overrides=overrides)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "on?", "completion": "on"}\n')
    fields = {"name": "small", "base": "builtin:tiny", "data": {"train": "rows.jsonl"}}
    search = {"num_trials": 4, "space": {"optim.learning_rate": {"log_uniform": [1e-5, 1e-2]}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(fields | {"search": search}))
    return tmp_path / "sweep.yaml"


def test_a_job_has_the_file_its_rows_and_pharos_and_hears_an_interrupt(path: Path) -> None:
    api = FakeApi()
    job = submit(api, path, overrides=["search.num_trials=8", "lora.r=4"], tracking_uri="http://tracking:5000")
    [request] = api.submitted
    assert (job.id, job.state, request["submission_id"]) == ("pharos-small-0001", "PENDING", "pharos-small-0001")
    package, files = api.held
    assert set(files) == {"sweep.yaml", "rows.jsonl"}
    assert {"__main__.py", "cli/__init__.py", "sweep/driver.py"} <= package.keys()
    assert not any("__pycache__" in name for name in package)
    assert request["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    assert "pip" not in request["runtime_env"]


def arguments(entrypoint: str) -> dict[str, Any]:
    """What our own command line makes of a job's command."""
    python, dash_m, module, verb, *words = shlex.split(entrypoint)
    assert (python, dash_m, module) == ("python", "-m", "pharos")
    command = typer.main.get_command(app)
    with command.commands[verb].make_context(verb, words) as context:
        return {"verb": verb} | context.params


def test_the_command_of_a_job_is_one_that_the_command_line_takes(path: Path) -> None:
    api = FakeApi()
    override = "search.space={lora.r: {ordered: [2, 4]}, optim.learning_rate: {log_uniform: [1e-5, 1e-2]}}"
    submit(api, path, overrides=[override], tracking_uri="http://tracking:5000")
    given = arguments(api.submitted[0]["entrypoint"])
    assert (given["verb"], given["spec"], given["overrides"]) == ("sweep", Path("sweep.yaml"), [override])
    assert (str(given["storage"]), given["tracking_uri"]) == (STORAGE, "http://tracking:5000")

    api.now["pharos-small-0001"] = "STOPPED"
    again = jobs.resume(api, "small")
    assert again.id == "pharos-small-0002"
    given = arguments(api.submitted[1]["entrypoint"])
    assert (given["verb"], given["sweep"], given["file"]) == ("resume", "small", "sweep.yaml")
    assert (given["overrides"], given["storage"]) == ([override], STORAGE)
    assert given["tracking_uri"] == "http://tracking:5000"
    assert "working_dir" not in api.submitted[1]["runtime_env"], "Ray has deleted it with the first job"
    assert again.request == jobs.latest(api, "small").request


def test_one_fine_tune_is_submitted_and_resumed_as_one(path: Path) -> None:
    api = FakeApi()
    spec = load(path, None, STORAGE, None, train=True)
    assert jobs.submit(api, spec, path, tracking_uri=None, overrides=[], train=True).id == "pharos-small-train-0001"
    given = arguments(api.submitted[0]["entrypoint"])
    assert (given["verb"], given["spec"]) == ("train", Path("sweep.yaml"))

    api.now["pharos-small-train-0001"] = "STOPPED"
    jobs.resume(api, "small-train")
    given = arguments(api.submitted[1]["entrypoint"])
    assert (given["verb"], given["sweep"], given["train"]) == ("resume", "small-train", True)


def test_one_job_of_a_sweep_at_a_time(path: Path) -> None:
    api = FakeApi()
    submit(api, path)
    with pytest.raises(ClusterError, match=r"name=small runs on http://head:8265 already, as job pharos-small-0001\."):
        submit(api, path)
    with pytest.raises(ClusterError, match="already"):
        jobs.resume(api, "small")
    submit(api, path, overrides=["name=small-0001"])
    api.now["pharos-small-0001"] = "FAILED"
    assert submit(api, path).id == "pharos-small-0002"
    assert [job.id for job in jobs.jobs_of(api, "small")] == ["pharos-small-0001", "pharos-small-0002"]


def test_an_unknown_name_is_answered_with_those_that_there_are(path: Path) -> None:
    api = FakeApi()
    with pytest.raises(ClusterError, match=r"sweep=smal: no job of http://head:8265 .* It has none at all"):
        jobs.latest(api, "smal")
    submit(api, path)
    with pytest.raises(ClusterError, match=r"Did you mean small\?"):
        jobs.latest(api, "smal")


@pytest.mark.parametrize("storage", ["pharos-results", "./results", "../results"])
def test_a_relative_storage_is_refused_before_anything_travels(path: Path, storage: str) -> None:
    api = FakeApi()
    with pytest.raises(StorageError, match=rf"storage={re.escape(storage)} is relative.*--storage /shared"):
        submit(api, path, storage=storage)
    assert api.submitted == []
    submit(api, path, storage="s3://bucket/results")


def test_a_password_is_refused_and_reaches_nothing(path: Path) -> None:
    api = FakeApi()
    uri = "http://ada:sesame@tracking:5000"
    for given in ({"tracking_uri": uri}, {"overrides": [f"tracking.uri={uri}"]}):
        with pytest.raises(TrackingError, match="holds a password.*MLFLOW_TRACKING_PASSWORD.*http://t") as caught:
            submit(api, path, **given)
        assert "sesame" not in caught.value.message
    assert api.submitted == []


def test_the_token_is_in_nothing_that_is_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    api = FakeApi()
    submit(api, path)
    assert "0123456789abcdef" not in repr(api.submitted) + repr(api.texts)


def follow(api: FakeApi, job: SweepJob, **given: Any) -> list[str]:
    return list(jobs.follow(api, job, sleep=lambda _: None, **given))


def test_whoever_follows_a_job_reads_every_line_once_to_its_end(path: Path) -> None:
    api = FakeApi()
    job = submit(api, path)
    status = status_line(SweepStatus(sweep="small"))
    whole = f"starting\n{status}\ntraining\n0:01 round\ndone"
    api.states[job.id] = iter(["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"])
    api.logs[job.id] = iter([whole[:4], whole[:30], whole[:-2], whole])
    assert follow(api, job, until=lambda _: False) == ["starting", "training", "0:01 round", "done"]


def test_it_is_followed_until_it_trains(path: Path) -> None:
    api = FakeApi()
    job = submit(api, path)
    status = status_line(SweepStatus(sweep="small"))
    api.states[job.id] = iter(["PENDING", "RUNNING", "RUNNING", "RUNNING"])
    api.logs[job.id] = iter(["", "starting\n", f"starting\n{status}\n", "never read"])
    assert follow(api, job, until=lambda found: found is not None) == ["starting"]


def test_a_job_that_says_nothing_leaves_what_the_one_before_it_said(path: Path) -> None:
    api = FakeApi()
    first = submit(api, path)
    assert jobs.status(api, first) is None
    api.now[first.id] = "STOPPED"
    second = jobs.resume(api, "small")
    known = SweepStatus(sweep="small", num_trials=4, trials={"COMPLETED": 2})
    api.logs = {first.id: iter([status_line(known) + "\n"]), second.id: iter(["starting\n"])}
    assert jobs.status(api, second) == known


def test_whoever_waits_ends_with_the_exit_code_of_the_job(path: Path) -> None:
    api = FakeApi()
    job = submit(api, path)
    api.states[job.id] = iter(["RUNNING", "RUNNING", "FAILED"])
    ended = jobs.wait(api, job, timeout_s=60, sleep=lambda _: None)
    assert (ended.state, jobs.exit_code(ended)) == ("FAILED", 2)
    for state, code in (("SUCCEEDED", 0), ("STOPPED", 130)):
        api.now[job.id] = state
        assert jobs.exit_code(jobs.refreshed(api, job)) == code
    api.now[job.id] = "RUNNING"
    with pytest.raises(ClusterError, match="job pharos-small-0001 has not ended within 0 s; it is RUNNING"):
        jobs.wait(api, job, timeout_s=0, sleep=lambda _: None)
