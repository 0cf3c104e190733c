"""What `pharos top` shows: a frame that fits, plain lines, JSON; and a clear word where nothing runs any more."""

from __future__ import annotations

import fcntl
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.measured_sweep import measured_spec, measured_sweep
from typer.testing import CliRunner

from pharos.cli import app
from pharos.console import show_top
from pharos.errors import StorageError
from pharos.plan import events as ev
from pharos.sweep.watching import is_being_run, sweep_to_watch
from pharos.track.event_log import EventLog

EVENTS = measured_sweep(measured_spec())
HALF = len(EVENTS) // 2


def shown(
    events: Sequence[ev.Event], *, width: int = 100, is_running: bool = True, once: bool = True, as_json: bool = False
) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=40, highlight=False)
    show_top(
        lambda sequence: [event for event in events if event.sequence >= sequence],
        lambda: is_running,
        once=once,
        as_json=as_json,
        console=console,
        now=lambda: events[-1].time_s,
    )
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_frame_shows_seats_leaders_and_pools_and_fits(width: int) -> None:
    frame = shown(EVENTS[:HALF], width=width)
    lines = frame.splitlines()
    assert max(len(line) for line in lines) <= width
    assert len(lines) <= 40
    assert "simulated" in lines[0]
    [pool] = [line for line in lines if line.startswith("pool-0")]
    assert "10.00" in pool, "clocks a second"
    assert "33%" in pool, "of the stated peak"
    assert "backward 35%" in frame
    assert "cost" in frame


def test_json_holds_the_same_facts() -> None:
    facts = json.loads(shown(EVENTS[:HALF], as_json=True))
    assert (facts["sweep"], facts["state"], facts["num_trials"]) == ("simulated", "RUNNING", 12)
    [pool] = facts["pools"]
    assert pool["shares"]["forward"] == pytest.approx(0.2)


def test_an_ended_sweep_says_how_it_ended_and_what_to_type() -> None:
    text = shown(EVENTS, is_running=False)
    assert "simulated  COMPLETED: all trials are done; best 00" in text
    assert "pharos compare simulated" in text


def test_one_that_was_interrupted_says_so() -> None:
    text = shown(EVENTS[:HALF], is_running=False)
    assert "nobody runs it, and its log has no end" in text
    assert "pharos resume simulated" in text


def test_without_a_terminal_it_follows_in_lines_until_the_end() -> None:
    stream = io.StringIO()
    read_so_far = [HALF]

    def read(sequence: int) -> Sequence[ev.Event]:
        return [event for event in EVENTS[: read_so_far[0]] if event.sequence >= sequence]

    def wait(_: float) -> None:
        read_so_far[0] += 20

    show_top(read, lambda: True, console=Console(file=stream, width=100, highlight=False), wait=wait)
    lines = stream.getvalue().splitlines()
    assert any("rung" in line for line in lines)
    assert lines[-2].startswith("simulated  COMPLETED")


def write_log(storage: Path, events: Sequence[ev.Event]) -> Path:
    EventLog(storage / "simulated" / "events").append(events)
    return storage / "simulated"


def test_the_verb_watches_the_only_sweep_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    directory = write_log(tmp_path, EVENTS[:HALF])
    with (directory / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert is_being_run(directory)
        result = CliRunner().invoke(app, ["top", "--storage", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["state"] == "RUNNING"
    assert not is_being_run(directory)


def test_where_none_runs_it_says_what_to_name(tmp_path: Path) -> None:
    directory = write_log(tmp_path, EVENTS)
    with pytest.raises(StorageError, match="No sweep runs in the storage .* Name one that has ended"):
        sweep_to_watch(None, tmp_path)
    assert sweep_to_watch("simulated", tmp_path) == directory
    with pytest.raises(StorageError, match="Did you mean simulated"):
        sweep_to_watch("simulate", tmp_path)


def test_a_sweep_that_has_told_nothing_yet_is_no_traceback() -> None:
    with pytest.raises(StorageError, match="is starting and has told nothing yet"):
        show_top(lambda _: [], lambda: True, once=True)


def test_a_spec_of_another_version_is_no_traceback() -> None:
    started = replace(EVENTS[0], spec={"name": "simulated", "of": "the future"})
    with pytest.raises(StorageError, match="whose spec this one does not read"):
        shown([started, *EVENTS[1:HALF]])
