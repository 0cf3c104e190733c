"""What the clouds' notices mean: whether this machine is to go, and when."""

from __future__ import annotations

import json

import pytest

from pharos.plan.notices import aws_notice, azure_notice, gcp_notice

AT_S = 1795249320.0  # 2026-11-21 08:22:00 UTC
PREEMPT = {
    "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
    "EventType": "Preempt",
    "ResourceType": "VirtualMachine",
    "Resources": ["workers_3"],
    "EventStatus": "Scheduled",
    "NotBefore": "Sat, 21 Nov 2026 08:22:00 GMT",
    "Description": "",
    "EventSource": "Platform",
    "DurationInSeconds": -1,
}


def azure_events(**changes: object) -> str:
    return json.dumps({"DocumentIncarnation": 2, "Events": [PREEMPT | changes]})


def test_aws_says_when_the_instance_ends() -> None:
    notice = aws_notice('{"action": "terminate", "time": "2026-11-21T08:22:00Z"}', None)
    assert notice is not None
    assert (notice.deadline_s, notice.text) == (AT_S, "AWS is to terminate this spot instance at 08:22:00 UTC")


def test_an_interruption_counts_more_than_the_recommendation_before_it() -> None:
    recommended = '{"noticeTime": "2026-11-21T08:22:00Z"}'
    early = aws_notice(None, recommended)
    late = aws_notice('{"action": "stop", "time": "2026-11-21T08:24:00Z"}', recommended)
    assert early is not None
    assert late is not None
    assert early.deadline_s is None, "a recommendation has no deadline"
    assert late.deadline_s == AT_S + 120
    assert early.key != late.key, "the second must be heard although the first was"
    assert aws_notice(None, None) is None


def test_gcp_gives_thirty_seconds() -> None:
    notice = gcp_notice("TRUE\n", now_s=100.0)
    assert notice is not None
    assert notice.deadline_s == 130.0
    assert gcp_notice("FALSE", now_s=100.0) is None


def test_azure_means_this_machine_and_only_what_ends_it() -> None:
    notice = azure_notice(azure_events(), machine="workers_3", now_s=0)
    assert notice is not None
    assert (notice.deadline_s, PREEMPT["EventId"] in notice.key) == (AT_S, True)
    assert azure_notice(azure_events(), machine="workers_30", now_s=0) is None
    assert azure_notice(azure_events(EventType="Freeze"), machine="workers_3", now_s=0) is None
    assert azure_notice('{"DocumentIncarnation": 1, "Events": []}', machine="workers_3", now_s=0) is None


def test_an_azure_event_that_has_started_has_no_time_and_gets_the_shortest() -> None:
    notice = azure_notice(azure_events(EventStatus="Started", NotBefore=""), machine="workers_3", now_s=50.0)
    assert notice is not None
    assert notice.deadline_s == 80.0


@pytest.mark.parametrize(
    "reading",
    [
        lambda: aws_notice("<html>", None),
        lambda: aws_notice("[]", None),
        lambda: aws_notice('{"action": "stop", "time": "soon"}', None),
        lambda: aws_notice(None, "{}"),
        lambda: gcp_notice("<!DOCTYPE html>", now_s=0),
        lambda: azure_notice("no", machine="workers_3", now_s=0),
        lambda: azure_notice(azure_events(NotBefore="soon"), machine="workers_3", now_s=0),
    ],
)
def test_what_is_no_answer_of_the_service_is_said_and_never_taken_for_no_notice(reading: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        reading()  # type: ignore[operator]
