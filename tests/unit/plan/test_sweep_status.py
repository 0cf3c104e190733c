"""How far a sweep is, from its events and back from the lines of a job's log."""

from __future__ import annotations

from itertools import chain

from tests.support.scripted_sweep import make_plan, make_spec, scripted_sweep

from pharos.plan.ledger import Ledger
from pharos.plan.sweep_status import MARK, SweepStatus, for_people, last_status, status_line, status_of


def half_and_whole() -> tuple[SweepStatus, SweepStatus]:
    spec = make_spec()
    events = list(chain.from_iterable(scripted_sweep(spec, make_plan(spec))))
    half, whole = Ledger.of(events[: len(events) // 2]), Ledger.of(events)
    return status_of(half, sweep=spec.name, phase="training"), status_of(whole, sweep=spec.name)


def test_every_trial_is_counted_once_under_its_state() -> None:
    half, whole = half_and_whole()
    assert half.trials["RUNNING"] > 0
    assert half.ended is None
    assert 0 < half.num_final < sum(half.trials.values()) <= half.num_trials == 12
    assert whole.num_final == sum(whole.trials.values()) == 12
    assert whole.ended == "COMPLETED"
    assert whole.best_score is not None
    assert whole.baseline_score is not None
    assert whole.best_score < whole.baseline_score


def test_the_last_status_of_a_log_is_found_as_it_was_and_people_do_not_see_it() -> None:
    half, whole = half_and_whole()
    log = ["starting Ray", status_line(half), "0:07  training", status_line(whole), "done"]
    assert last_status(log) == whole
    assert last_status(log[:3]) == half
    assert last_status(log[:1]) is None
    assert for_people(log) == ["starting Ray", "0:07  training", "done"]
    assert all(len(line.splitlines()) == 1 for line in log)


def test_a_line_that_was_cut_off_or_written_by_a_later_version_hides_none_before_it() -> None:
    half, whole = half_and_whole()
    later = status_line(half).replace('{"sweep"', '{"of_a_later_version":1,"sweep"')
    assert last_status([later]) == half
    assert last_status([status_line(half), status_line(whole)[:-20], MARK + "[]", MARK + '{"a":1}']) == half
