"""What a benchmark gives back, and what becomes of it: a table for a person, JSON for programs.

Nothing is measured here. A report holds plain values only; its tables are what is printed and what is written.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "ray", "optuna", "mlflow")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """smoke: the cheapest form, whose figures mean nothing. max_steps: steps of a trial, none for the real length.

    shape: of gpu's model; none is the one that the benchmark is about. data: a directory of real rows, for packs.
    number, seed: of kills. rate: of two_nodes' link, as tc has it.
    """

    smoke: bool = False
    max_steps: int | None = None
    shape: str | None = None
    data: Path | None = None
    number: int | None = None
    seed: int = 0
    rate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure and what it should reach: at least, or with `at_most` at most, `limit`."""

    what: str
    measured: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows with the same keys, which are the headings."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """quality: what shows that the compared ways gave the same result; a speed without it is void."""

    settings: Row
    tables: Sequence[Table]
    quality: Row
    targets: Sequence[Target] = ()
    notes: Sequence[str] = field(default=())


def show(name: str, report: Report) -> None:
    print(f"\n{name}")
    for table in report.tables:
        print(f"\n{table.title}")
        _print_rows(table.rows)
    print()
    for key, value in report.quality.items():
        print(f"quality: {key}: {_shown(value)}")
    for target in report.targets:
        bound = "at most" if target.at_most else "at least"
        verdict = "reached" if target.met else "MISSED"
        print(f"target: {target.what}: {_shown(target.measured)} ({bound} {_shown(target.limit)}): {verdict}")
    for note in report.notes:
        print(f"note: {note}")


def write(name: str, report: Report, *, directory: Path, command: str) -> Path:
    """The report as <directory>/<name>.json, with where and how it was made."""
    record = {
        "benchmark": name,
        "command": command,
        "machine": machine(),
        "versions": {library: version(library) for library in LIBRARIES} | {"python": platform.python_version()},
        "settings": dict(report.settings),
        "tables": [asdict(table) for table in report.tables],
        "quality": dict(report.quality),
        "targets": [asdict(target) | {"met": target.met} for target in report.targets],
        "notes": list(report.notes),
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, Any]:
    """What the figures depend on. The load average says whether others were at work as well."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory_bytes / 10**9, 1),
        "gpu": gpu,
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.system(),
    }


def _cpu_name() -> str:
    """As Linux names it; elsewhere the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _print_rows(rows: Sequence[Row]) -> None:
    lines = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
