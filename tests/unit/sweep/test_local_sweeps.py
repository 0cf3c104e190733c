"""A sweep of this machine by its name: whether it runs, how it is stopped, what it is run again from."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.many_trials import many_trials, many_trials_spec

from pharos.errors import StorageError
from pharos.plan.events import SweepStarted
from pharos.plan.paths import SweepPaths
from pharos.sweep import local_sweeps
from pharos.sweep.local_sweeps import interrupt, local_sweep, spec_in_log, wait_until_free
from pharos.sweep.paths import Holder, lock_holder, sweep_lock
from pharos.track.sweeps import log_of

HOLDS = """
import signal, sys, time
from pathlib import Path
from pharos.plan.paths import SweepPaths
from pharos.sweep.paths import sweep_lock
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    with sweep_lock(SweepPaths(Path(sys.argv[1]), "small")):
        print("held", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


def write_log(storage: Path, *, root: str, **changes: object) -> None:
    for batch in many_trials(many_trials_spec(8, name="small", num_steps=16)):
        events = [replace(e, root=root, **changes) if isinstance(e, SweepStarted) else e for e in batch]
        log_of(storage / "small").append(events)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    write_log(tmp_path / "results", root=str(tmp_path))
    return tmp_path / "results"


@pytest.fixture
def holder(storage: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the sweep, and ends at SIGTERM as a driver does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(storage)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_lock_names_the_process_that_holds_it_and_only_as_long_as_it_does(
    storage: Path, holder: subprocess.Popen[str]
) -> None:
    paths = SweepPaths(storage, "small")
    assert lock_holder(paths) == Holder(pid=holder.pid, host=socket.gethostname())
    with pytest.raises(StorageError, match=r"being run by another process.*pharos stop small"), sweep_lock(paths):
        pass
    assert lock_holder(paths) == Holder(pid=holder.pid, host=socket.gethostname()), "who failed has not overwritten it"
    holder.kill()
    holder.wait()
    assert lock_holder(paths) is None
    assert lock_holder(SweepPaths(storage, "never-run")) is None


def test_a_sweep_is_stopped_by_an_interrupt_and_waited_for(storage: Path, holder: subprocess.Popen[str]) -> None:
    sweep = local_sweep("small", storage)
    interrupt(sweep)
    assert wait_until_free(sweep).holder is None
    assert holder.communicate(timeout=30)[0] == "interrupted\n"
    with pytest.raises(StorageError, match="name=small is not being run: there is nothing to stop"):
        interrupt(local_sweep("small", storage))


def test_a_sweep_of_another_machine_is_not_stopped_from_here(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    sweep = replace(local_sweep("small", storage), holder=Holder(pid=os.getpid(), host="elsewhere"))
    with pytest.raises(StorageError, match="run by another machine, elsewhere.*--address"):
        interrupt(sweep)
    assert killed == []
    interrupt(replace(sweep, holder=Holder(pid=4711, host=socket.gethostname())))
    assert killed == [(4711, signal.SIGTERM)]


def test_one_that_does_not_end_is_named_with_what_is_left_to_do(
    storage: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_sweeps, "STOP_PATIENCE_S", 0)
    with pytest.raises(StorageError, match=f"kill -9 {holder.pid} ends it without order"):
        wait_until_free(local_sweep("small", storage), sleep=lambda _: None)


def test_it_is_run_again_from_its_log(storage: Path, tmp_path: Path) -> None:
    spec, root = spec_in_log(local_sweep("small", storage), None)
    assert (spec.name, spec.storage, root) == ("small", str(storage), tmp_path)
    assert spec.search is not None
    assert spec.search.num_trials == 8
    assert spec_in_log(local_sweep("small", storage), "http://other:5000")[0].tracking.uri == "http://other:5000"


def test_a_directory_that_is_gone_is_found_below_the_storage_or_named(tmp_path: Path) -> None:
    storage = tmp_path / "results"
    write_log(storage, root=str(tmp_path / "gone"))
    with pytest.raises(StorageError, match=r"the directory of its file, .*gone, is not there.*pharos sweep SPEC"):
        spec_in_log(local_sweep("small", storage), None)
    (storage / "small" / "submitted").mkdir()
    assert spec_in_log(local_sweep("small", storage), None)[1] == storage / "small" / "submitted"


def test_a_password_that_no_log_holds_is_asked_for(tmp_path: Path) -> None:
    spec = many_trials_spec(8, name="small", num_steps=16).model_dump(mode="json", by_alias=True)
    masked = json.loads(json.dumps(spec)) | {"tracking": {"uri": "http://ada:***@tracking:5000"}}
    write_log(tmp_path, root=str(tmp_path), spec=masked)
    with pytest.raises(StorageError, match=r"password of tracking.uri=http://ada:\*\*\*@tracking:5000 is in no log"):
        spec_in_log(local_sweep("small", tmp_path), None)
    whole = "http://ada:sesame@tracking:5000"
    assert spec_in_log(local_sweep("small", tmp_path), whole)[0].tracking.uri == whole
