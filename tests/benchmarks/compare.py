"""`pharos compare` of a sweep of 1,000 trials: the whole command, from the shell's point of view.

From the event log as the desk writes it: 8 rounds a trial, 25 steps a round, a segment a round. From MLflow alone
the same trials; its runs hold one round of one step, since a comparison reads the latest values and never the curves.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.reporting import Options, Report, Table, Target
from tests.support.many_trials import NUM_ROUNDS, many_trials, many_trials_spec

from pharos.plan.paths import tracking_uri_of
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.sweeps import log_of

ROOT = Path(__file__).parents[2]
NUM_TRIALS = 1000
NUM_STEPS = 200
EVENTS_PER_WRITE = 500


def run(options: Options) -> Report:
    num_trials, repeats = (16, 1) if options.smoke else (NUM_TRIALS, 7)
    spec = many_trials_spec(num_trials, num_steps=NUM_STEPS)
    with tempfile.TemporaryDirectory(prefix="pharos-benchmark-") as folder:
        full, short = Path(folder, "full"), Path(folder, "short")
        for batch in many_trials(spec):
            log_of(full / spec.name).append(batch)
        segments = list((full / spec.name / "events").iterdir())
        log_mb = sum(path.stat().st_size for path in segments) / 1e6
        # As MLflow holds them, and the log of the same events beside it.
        uri = tracking_uri_of(short)
        log = log_of(short / spec.name)
        events = [event for batch in many_trials(spec, num_rounds=1, steps_told=1) for event in log.append(batch)]
        runs = MlflowRuns(uri, "pharos", artifact_root=short / "mlartifacts")
        runs.attach(spec.name, events[0].time_s)
        began_s = time.perf_counter()
        for first in range(0, len(events), EVENTS_PER_WRITE):
            runs.write(events[first : first + EVENTS_PER_WRITE])
        writing_s = time.perf_counter() - began_s
        ways = {
            "event log": timed([spec.name, "--storage", str(full)], repeats),
            "event log, --json": timed([spec.name, "--storage", str(full), "--json"], repeats),
            "event log, --csv": timed([spec.name, "--storage", str(full), "--csv"], repeats),
            "MLflow, SQLite": timed([spec.name, "--tracking-uri", uri], repeats),
        }
        nothing = timed(["--help"], repeats)
        same = told([spec.name, "--storage", str(short)]) == told([spec.name, "--tracking-uri", uri])
    return Report(
        settings={
            "trials": num_trials,
            "rounds of a trial": NUM_ROUNDS,
            "steps of a trial": NUM_STEPS,
            "segments": len(segments),
            "MB of the log": round(log_mb, 1),
            "runs of each": repeats,
        },
        tables=[
            Table(
                title="seconds of the whole command",
                rows=[{"way": way, **found} for way, found in {**ways, "compare --help": nothing}.items()],
            )
        ],
        quality={
            "same leaderboard from the log and from MLflow": same,
            "seconds to write the same trials to MLflow": round(writing_s, 1),
        },
        targets=[
            Target(
                what=f"seconds for {num_trials:,} trials from the event log, median",
                measured=ways["event log"]["median"],
                limit=2.0,
                at_most=True,
            )
        ],
        notes=["importance is part of it, by Optuna; torch, Ray, MLflow and scikit-learn are not loaded."],
    )


def timed(arguments: list[str], repeats: int) -> dict[str, float]:
    """Wall time of `pharos compare` with these arguments, and the processor time of its quickest run."""
    walls, processor = [], []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began_s = time.perf_counter()
        compare(arguments)
        walls.append(time.perf_counter() - began_s)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"median": round(median(walls), 2), "best": round(min(walls), 2), "of a processor": round(min(processor), 2)}


def told(arguments: list[str]) -> list[dict[str, Any]]:
    """The trials of `--json`, times to the millisecond, without the winner: the made-up end names none to MLflow."""
    trials = json.loads(compare([*arguments, "--json"]))["trials"]
    return [trial | {"seat_s": round(trial["seat_s"], 3), "is_winner": None} for trial in trials]


def compare(arguments: list[str]) -> str:
    command = [sys.executable, "-m", "pharos", "compare", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr}")
    return done.stdout
