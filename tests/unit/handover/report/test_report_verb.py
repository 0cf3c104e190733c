"""pharos report: a sweep's page from its event log alone, found by name or directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.command_line import Pharos
from tests.support.simulated_sweep import Happening, simulated_spec, simulated_sweep

from pharos.track.sweeps import log_of


@pytest.fixture
def storage(tmp_path: Path, twelve) -> Path:
    """A finished sweep, and one that was killed."""
    log_of(tmp_path / "simulated").append(twelve)
    killed = simulated_sweep(simulated_spec(12, name="killed"), happening=Happening(stop_at=3))
    log_of(tmp_path / "killed").append(killed)
    return tmp_path


def test_it_writes_the_page_of_a_finished_sweep_and_says_where_it_is(storage: Path, pharos: Pharos) -> None:
    page = storage / "simulated" / "report.html"
    said = f"simulated  COMPLETED, 12 trials\nreport    {page}\nlook      xdg-open {page}\n"
    assert pharos("report", "simulated", "--storage", storage) == (0, said, "")
    assert "12 trials over builtin:tiny" in page.read_text(encoding="utf-8")
    assert '"importance":{"data"' in page.read_text(encoding="utf-8")


def test_it_writes_the_page_of_a_sweep_without_an_end_wherever_it_is_asked_to(storage: Path, pharos: Pharos) -> None:
    page = storage / "page of killed.html"
    code, out, err = pharos("report", storage / "killed", "--output", page)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "killed  no end in its log: it runs, or was interrupted; 12 trials so far"
    assert out.splitlines()[-1] == f"look      xdg-open '{page}'"
    assert "no end is in its log" in page.read_text(encoding="utf-8")
    assert not (storage / "killed" / "report.html").exists()


def test_a_sweep_that_was_moved_has_its_page_where_it_is_now(storage: Path, pharos: Pharos) -> None:
    shutil.move(storage / "simulated", storage / "renamed")
    assert pharos("report", "renamed", "--storage", storage)[0] == 0
    page = (storage / "renamed" / "report.html").read_text(encoding="utf-8")
    assert str(storage / "renamed" / "result.json") in page
    assert f"pharos compare renamed --storage {storage}" in page


def test_what_cannot_be_reported_is_said_in_one_message(storage: Path, pharos: Pharos) -> None:
    code, out, err = pharos("report", "simulatd", "--storage", storage)
    assert (code, out) == (2, "")
    assert err.endswith("Did you mean simulated?\n")
    code, out, err = pharos("report", "simulated", "--storage", storage, "--output", storage / "no" / "page.html")
    assert (code, out) == (2, "")
    assert err == f"error: {storage}/no/page.html: the report cannot be written: No such file or directory.\n"
    broken = storage / "simulated" / "events" / "000000.jsonl"
    broken.write_text("{}\n")
    code, out, err = pharos("report", "simulated", "--storage", storage)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {broken}:1: the event log is corrupt")
