"""A sweep is found by its name under a storage, or by its directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.track.sweeps import started

from pharos.errors import StorageError
from pharos.track.sweeps import find_sweep, log_of, sweeps_in


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for name in ("quickstart", "refine"):
        log_of(tmp_path / name).append([started()])
    (tmp_path / "cache").mkdir()
    (tmp_path / "begun" / "events").mkdir(parents=True)
    return tmp_path


def test_a_sweep_is_found_by_name_and_by_directory(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_sweep("refine", storage) == storage / "refine"
    assert find_sweep(str(storage / "refine"), Path("elsewhere")) == storage / "refine"
    monkeypatch.chdir(storage)
    assert find_sweep("refine/", Path("elsewhere")) == storage / "refine"
    assert sweeps_in(storage) == ["quickstart", "refine"]
    assert sweeps_in(storage / "nowhere") == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("quikstart", "sweep=quikstart: no sweep of this name lies in .*Did you mean quickstart\\?$"),
        ("other", "There are: quickstart, refine\\.$"),
        ("begun", "There are: quickstart, refine\\.$"),
    ],
)
def test_an_unknown_sweep_is_refused_with_those_that_are_there(storage: Path, name: str, says: str) -> None:
    with pytest.raises(StorageError, match=says):
        find_sweep(name, storage)


def test_a_storage_without_sweeps_and_one_that_is_not_there_say_so(storage: Path) -> None:
    with pytest.raises(StorageError, match="holds no sweep at all"):
        find_sweep("quickstart", storage / "cache")
    with pytest.raises(StorageError, match="there is no storage .*nowhere. Name the directory"):
        find_sweep("quickstart", storage / "nowhere")
