"""What the clouds' metadata services say when a machine is about to be taken away. Pure: nothing is asked here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

SHORT_NOTICE_S = 30
"""What GCP and Azure give a spot machine from the notice to its end. AWS says the time itself, two minutes ahead."""
AZURE_ENDINGS = ("Preempt", "Terminate")
"""Scheduled events after which the machine is gone; the others (Freeze, Reboot, Redeploy) give it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The cloud wants this machine back.

    key: the same when one notice is heard again. deadline_s: seconds since the epoch, none where no time was given.
    """

    key: str
    text: str
    deadline_s: float | None


def aws_notice(instance_action: str | None, rebalance: str | None) -> Notice | None:
    """From the bodies of spot/instance-action and events/recommendations/rebalance; none stands for a 404.

    Raises ValueError for what is neither. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-interruptions.html
    """
    if instance_action is not None:
        said = _object(instance_action, "spot/instance-action")
        action, at_s = str(said.get("action", "terminate")), _iso_s(str(said.get("time", "")))
        return Notice(
            key=f"aws-{action}-{at_s:.0f}",
            text=f"AWS is to {action} this spot instance at {_clock(at_s)}",
            deadline_s=at_s,
        )
    if rebalance is not None:
        said = _object(rebalance, "events/recommendations/rebalance")
        at_s = _iso_s(str(said.get("noticeTime", "")))
        return Notice(
            key=f"aws-rebalance-{at_s:.0f}",
            text=f"AWS recommends, since {_clock(at_s)}, to leave this spot instance before it is interrupted",
            deadline_s=None,
        )
    return None


def gcp_notice(preempted: str, *, now_s: float) -> Notice | None:
    """From the body of instance/preempted, TRUE or FALSE. Raises ValueError for anything else."""
    answer = preempted.strip().upper()
    if answer == "FALSE":
        return None
    if answer != "TRUE":
        raise ValueError(f"instance/preempted answered {preempted.strip()[:80]!r}, neither TRUE nor FALSE")
    return Notice(key="gcp-preempted", text="GCP preempts this instance", deadline_s=now_s + SHORT_NOTICE_S)


def azure_notice(scheduled_events: str, *, machine: str, now_s: float) -> Notice | None:
    """From the body of scheduledevents: the first event that ends the machine of this name.

    An event that has started has no time any more, and gets the shortest that Azure gives. Raises ValueError for what
    is no such document. https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
    """
    events = _object(scheduled_events, "scheduledevents").get("Events", [])
    for event in events if isinstance(events, list) else ():
        if event.get("EventType") not in AZURE_ENDINGS or machine not in event.get("Resources", ()):
            continue
        not_before = str(event.get("NotBefore") or "")
        at_s = _http_date_s(not_before) if not_before else now_s + SHORT_NOTICE_S
        return Notice(
            key=f"azure-{event.get('EventId')}",
            text=f"Azure is to {str(event['EventType']).lower()} {machine} at {_clock(at_s)}",
            deadline_s=at_s,
        )
    return None


def _object(text: str, what: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{what} answered no JSON: {text[:80]!r}") from error
    if not isinstance(said, dict):
        raise ValueError(f"{what} answered {text[:80]!r}, which is no JSON object")
    return said


def _iso_s(text: str) -> float:
    """Of 2026-11-21T08:22:00Z, which is always in UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time such as 2026-11-21T08:22:00Z") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _http_date_s(text: str) -> float:
    """Of Mon, 19 Sep 2016 18:29:47 GMT."""
    return parsedate_to_datetime(text).timestamp()


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S UTC")
