"""The event log: what is appended is read back, whatever crashed in between, and nothing is ever overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos.errors import StorageError
from pharos.plan.events import Event, PoolClosed, TrialReported
from pharos.track.event_log import EventLog


def closed(*names: str) -> list[Event]:
    return [PoolClosed(pool=name, time_s=100.5) for name in names]


def pools(log: EventLog, from_sequence: int = 0) -> list[tuple[int, str]]:
    return [(event.sequence, event.pool) for event in log.read(from_sequence) if isinstance(event, PoolClosed)]


def test_appended_events_are_numbered_densely_over_segments_and_read_back_in_order(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    first = log.append(closed("a", "b"))
    second = log.append(closed("c"))
    assert [event.sequence for event in (*first, *second)] == [0, 1, 2]
    assert list(log.read()) == [*first, *second]
    assert sorted(path.name for path in log.directory.iterdir()) == ["000000.jsonl", "000002.jsonl"]


def test_a_new_log_on_the_same_directory_continues_the_numbering(tmp_path: Path) -> None:
    EventLog(tmp_path).append(closed("a", "b"))
    log = EventLog(tmp_path)
    assert log.next_sequence() == 2
    log.append(closed("c"))
    assert pools(log) == [(0, "a"), (1, "b"), (2, "c")]


def test_reading_starts_inside_a_segment_and_beyond_the_end(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(closed("a", "b", "c"))
    log.append(closed("d", "e"))
    assert pools(log, 1) == [(1, "b"), (2, "c"), (3, "d"), (4, "e")]
    assert pools(log, 4) == [(4, "e")]
    assert pools(log, 5) == []


def test_an_empty_append_writes_nothing_and_an_empty_log_has_no_events(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    assert log.append([]) == ()
    assert list(log.read()) == []
    assert not log.directory.exists()


def test_a_loss_that_is_no_number_survives_the_log(tmp_path: Path) -> None:
    report = TrialReported(
        number=1,
        step=1,
        clocks=1,
        steps=({"step": 1, "loss": float("nan")},),
        eval_metrics={"eval_loss": float("inf")},
        best_metric=None,
        best_step=None,
        best_checkpoint=None,
        checkpoint=None,
    )
    log = EventLog(tmp_path)
    log.append([report])
    [read] = log.read()
    assert isinstance(read, TrialReported)
    assert read.steps[0]["loss"] != read.steps[0]["loss"]
    assert read.eval_metrics == {"eval_loss": float("inf")}


def test_what_a_crash_left_half_written_is_ignored(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(closed("a"))
    (tmp_path / "000001.jsonl.0badc0de.tmp").write_text('{"schema": 1, "kind": "pool_clo')
    again = EventLog(tmp_path)
    again.append(closed("b"))
    assert pools(again) == [(0, "a"), (1, "b")]


def test_a_corrupt_line_is_named_with_its_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(closed("a"))
    log.append(closed("b", "c"))
    path = tmp_path / "000001.jsonl"
    path.write_text(path.read_text()[:-10])
    with pytest.raises(StorageError, match=r"000001\.jsonl:2: the event log is corrupt"):
        list(log.read())
    with pytest.raises(StorageError, match=r"000001\.jsonl:2: the event log is corrupt"):
        EventLog(tmp_path).append(closed("d"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"schema": 1, "kind": "pool_melted", "sequence": 1}', "is no event of this version"),
        ('{"schema": 2, "kind": "pool_closed", "pool": "a", "sequence": 1}', "schema=2"),
        ('{"schema": 1, "kind": "pool_closed", "sequence": 1}', "pool"),
        ('{"schema": 1, "kind": "pool_closed", "pool": "a", "sequence": 7}', "sequence=7 stands where 1 belongs"),
        ('["not an event"]', "corrupt"),
    ],
)
def test_a_line_that_is_no_event_is_refused_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    log = EventLog(tmp_path)
    log.append(closed("a"))
    (tmp_path / "000001.jsonl").write_text(line + "\n")
    with pytest.raises(StorageError, match=rf"000001\.jsonl:1: .*{reason}"):
        list(log.read())


@pytest.mark.parametrize("missing", ["000000.jsonl", "000002.jsonl"])
def test_a_missing_segment_is_named(tmp_path: Path, missing: str) -> None:
    log = EventLog(tmp_path)
    for names in (("a", "b"), ("c",), ("d",)):
        log.append(closed(*names))
    (tmp_path / missing).unlink()
    with pytest.raises(StorageError, match=f"{missing}: this segment of the event log is missing"):
        list(log.read())


def test_a_second_desk_overwrites_nothing(tmp_path: Path) -> None:
    log, other = EventLog(tmp_path), EventLog(tmp_path)
    log.append(closed("a"))
    assert other.next_sequence() == 1
    log.append(closed("b"))
    with pytest.raises(StorageError, match="another process appends to this event log"):
        other.append(closed("intruder"))
    assert pools(log) == [(0, "a"), (1, "b")]
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_storage_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file where the directory should be")
    with pytest.raises(StorageError, match="cannot be written"):
        EventLog(tmp_path / "events").append(closed("a"))
