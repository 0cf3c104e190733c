"""The quickstart's sweep as a user runs it: the command line in a process of its own, in a storage of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pharos.plan.events import Event
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths
from pharos.track.event_log import EventLog

QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"
NAME = "quickstart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """wall_s: of the whole command. staging_s: of its part before the first event: plan, base and data."""

    wall_s: float
    staging_s: float
    events: tuple[Event, ...]

    @property
    def ledger(self) -> Ledger:
        return Ledger.of(self.events)

    @property
    def training_s(self) -> float:
        """From the pool's opening to the end of the last trial."""
        opened_s = next(event.time_s for event in self.events if event.kind == "pool_opened")
        return max(event.time_s for event in self.events if event.kind == "trial_ended") - opened_s

    @property
    def share_outside(self) -> float:
        """Share of that time that went into neither clocks nor evaluation."""
        totals = self.ledger.totals
        return 1 - (totals.clocks_s + totals.evaluation_s) / self.training_s

    @property
    def phases_s(self) -> dict[str, float]:
        ended = self.ledger.ended
        return {"staging": self.staging_s} | (dict(ended.phases_s) if ended else {})


def sweep(storage: Path, overrides: Sequence[str], *, cache: Path | None = None) -> Swept:
    """Run `pharos sweep` to its end. cache: where built-in bases are kept; a new one has the base built as well."""
    command = [sys.executable, "-m", "pharos", "sweep", str(QUICKSTART), "--storage", str(storage)]
    for override in overrides:
        command += ["--set", override]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if cache is not None:
        environment["PHAROS_CACHE"] = str(cache)
    started_s = time.time()
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    wall_s = time.time() - started_s
    if done.returncode != 0:
        raise RuntimeError(f"the sweep ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    events = tuple(EventLog(SweepPaths(storage, NAME).events).read())
    return Swept(wall_s=wall_s, staging_s=events[0].time_s - started_s, events=events)
