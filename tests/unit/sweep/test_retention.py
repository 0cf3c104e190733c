"""What the driver deletes while a sweep runs: after the log says so, and again after a crash between the two."""

from __future__ import annotations

from pathlib import Path

from tests.support.scripted_sweep import make_plan, make_spec, scripted_sweep

from pharos.plan import events as ev
from pharos.plan.paths import SweepPaths
from pharos.spec.model import KeepSpec, SweepSpec
from pharos.sweep.retention import Retention


def spec_that_keeps(adapters: int | None) -> SweepSpec:
    return make_spec().model_copy(update={"keep": KeepSpec(adapters=adapters)})


def run(spec: SweepSpec, paths: SweepPaths) -> tuple[list[ev.Event], list[ev.Event]]:
    """A whole sweep heard: what it told, and what was recorded of deletions."""
    told: list[ev.Event] = []
    recorded: list[ev.Event] = []
    retention = Retention(spec, paths, recorded.append)
    for batch in scripted_sweep(spec, make_plan(spec)):
        for event in batch:
            if isinstance(event, ev.TrialReported):
                (paths.trials / f"{event.number:04d}" / f"step-{event.step:06d}").mkdir(parents=True, exist_ok=True)
        told += batch
        before = len(recorded)
        retention.update(batch)
        if recorded[before:]:
            retention.update(recorded[before:])
    return told, recorded


def test_the_best_the_baseline_and_nothing_else_are_left_at_the_end(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path, "s")
    _, recorded = run(spec_that_keeps(2), paths)
    left = {int(path.name) for path in paths.trials.iterdir()}
    named = {number for event in recorded if isinstance(event, ev.AdaptersRemoved) for number in event.numbers}
    assert len(left) == 3
    assert 0 in left
    assert left | named == set(range(12))
    assert not left & named


def test_everything_stays_where_nothing_is_asked(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path, "s")
    _, recorded = run(spec_that_keeps(None), paths)
    assert recorded == []
    assert len(list(paths.trials.iterdir())) == 12


def test_what_a_crash_left_between_log_and_deletion_goes_in_the_next_session(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path, "s")
    told, recorded = run(spec_that_keeps(2), paths)
    [number, *_] = [number for event in recorded if isinstance(event, ev.AdaptersRemoved) for number in event.numbers]
    (paths.trials / f"{number:04d}" / "step-000010").mkdir(parents=True)
    again: list[ev.Event] = []
    Retention(spec_that_keeps(2), paths, again.append).update([*told, *recorded])
    assert not (paths.trials / f"{number:04d}").exists()
    assert again == []
