"""What a sweep leaves beside its log: result.json for programs, report.html for people."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pharos.plan.comparison import sweep_of_ledger
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths
from pharos.store.mirror import mirrored, push_file
from pharos.track.sweeps import log_of


def has_result(paths: SweepPaths) -> bool:
    """Whether result.json lies in the storage."""
    place = mirrored(paths.result)
    return paths.result.is_file() if place is None else place.store.modified_s(place.name) is not None


def leave_result(paths: SweepPaths, result: dict[str, Any]) -> None:
    """Write both, and bring them to the store where the storage is one."""
    write_result(paths.result, result)
    write_report_of(paths.root, paths.report)
    for path in (paths.result, paths.report):
        push_file(path)


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write it whole or not at all: a reader never sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, path)


def write_report_of(sweep: Path, path: Path) -> Ledger:
    """Write the page of the sweep in a directory from its event log alone, and return what the log says.

    It does not matter whether the sweep has ended. Raises StorageError where the log cannot be read or `path` cannot be
    written.
    """
    from pharos.handover.report import write_report
    from pharos.sweep.importance import importance_of

    events = list(log_of(sweep).read())
    ledger = Ledger.of(events)
    importance: dict[str, float] = {}
    if ledger.started is not None:
        compared = sweep_of_ledger(ledger, {}, source=str(sweep))
        importance = importance_of(compared.space, compared.scored())
    write_report(path, events=events, ledger=ledger, importance=importance, sweep_dir=sweep)
    return ledger
