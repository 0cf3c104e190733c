"""Where a sweep lives, and that two drivers never run it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos.errors import StorageError
from pharos.plan.paths import SweepPaths
from pharos.sweep.paths import check_writable, sweep_lock


def test_two_sweeps_of_one_storage_share_nothing_but_cache_and_tracking(tmp_path: Path) -> None:
    one, other = SweepPaths(tmp_path, "one"), SweepPaths(tmp_path, "other")
    assert one.cache == other.cache
    assert one.tracking_uri == other.tracking_uri
    for name in ("root", "events", "trials", "ray", "merged", "result"):
        assert getattr(one, name) != getattr(other, name)


def test_a_missing_storage_is_created_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "storage")
    assert list((tmp_path / "new" / "storage").iterdir()) == []


def test_a_file_in_the_place_of_the_storage_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StorageError, match=r"storage=.*file cannot be written: .*--storage"):
        check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_sweep_that_is_being_run_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path, "a")
    with (
        sweep_lock(paths),
        pytest.raises(StorageError, match="name=a is being run by another process"),
        sweep_lock(paths),
    ):
        pass
    with sweep_lock(paths), sweep_lock(SweepPaths(tmp_path, "b")):
        pass
