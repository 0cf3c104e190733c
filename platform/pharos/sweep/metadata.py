"""Asking the metadata service of the cloud that this machine runs in whether it is about to be taken away.

The services of AWS, GCP and Azure all answer at one link-local address, over plain HTTP, each to its own header only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from pharos.errors import ClusterError
from pharos.plan.notices import Notice, aws_notice, azure_notice, gcp_notice

METADATA_SERVICE = "http://169.254.169.254"
CLOUDS = ("aws", "gcp", "azure")
ASK_ERRORS = (OSError, HTTPException, ValueError)
"""What asking can raise: nothing answers, it breaks off, or it answers something else."""

DETECT_TIMEOUT_S = 2
ANSWER_TIMEOUT_S = 10
AZURE_FIRST_ANSWER_S = 150
"""The first question turns scheduled events on, which can take Azure two minutes."""
GCP_HOLD_S = 60
AWS_TOKEN_LIFE_S = 21600

_opener = build_opener(ProxyHandler({}))  # a proxy would ask for the metadata of its own machine


class Cloud(Protocol):
    """holds: a question is held by the service until there is something to say, at most as long as it is told."""

    @property
    def name(self) -> str: ...

    @property
    def holds(self) -> bool: ...

    def ask(self, *, hold_s: float) -> Notice | None:
        """What the cloud says of this machine now. Raises one of ASK_ERRORS."""


@dataclass(slots=True, kw_only=True)
class Aws:
    """Instance metadata, version 2: every question carries a token that was asked for before."""

    endpoint: str
    rebalance: bool = True
    name: str = "AWS"
    holds: bool = False
    _token: str | None = None

    def ask(self, *, hold_s: float) -> Notice | None:
        del hold_s
        action = self._get("/latest/meta-data/spot/instance-action")
        if action is not None or not self.rebalance:
            return aws_notice(action, None)
        return aws_notice(None, self._get("/latest/meta-data/events/recommendations/rebalance"))

    def new_token(self, *, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        life = {"X-aws-ec2-metadata-token-ttl-seconds": str(AWS_TOKEN_LIFE_S)}
        self._token = _ask(f"{self.endpoint}/latest/api/token", life, method="PUT", timeout_s=timeout_s).body
        return self._token

    def _get(self, path: str) -> str | None:
        """None for 404, which is how AWS says that there is nothing."""
        for token in (self._token or self.new_token(), None):
            try:
                header = {"X-aws-ec2-metadata-token": token or self.new_token()}
                return _ask(self.endpoint + path, header).body
            except HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 401 or token is None:  # 401: the token's life is over
                    raise
        return None


@dataclass(slots=True, kw_only=True)
class Gcp:
    """The service holds a question until the value changes, so a notice is heard at once."""

    endpoint: str
    now: Callable[[], float] = time.time
    name: str = "GCP"
    holds: bool = True
    _etag: str | None = None

    def ask(self, *, hold_s: float) -> Notice | None:
        path = "/computeMetadata/v1/instance/preempted"
        if self._etag is not None and hold_s > 0:
            path += f"?wait_for_change=true&timeout_sec={hold_s:.0f}&last_etag={quote(self._etag)}"
        answer = _ask(self.endpoint + path, {"Metadata-Flavor": "Google"}, timeout_s=hold_s + ANSWER_TIMEOUT_S)
        self._etag = answer.headers.get("etag")
        return gcp_notice(answer.body, now_s=self.now())


@dataclass(slots=True, kw_only=True)
class Azure:
    """Scheduled events are those of a whole scale set: only what names this machine counts."""

    endpoint: str
    now: Callable[[], float] = time.time
    name: str = "Azure"
    holds: bool = False
    _machine: str | None = None
    _headers: dict[str, str] = field(default_factory=lambda: {"Metadata": "true"})

    def ask(self, *, hold_s: float) -> Notice | None:
        del hold_s
        timeout_s = ANSWER_TIMEOUT_S if self._machine else AZURE_FIRST_ANSWER_S
        machine = self._machine or self.machine()
        path = "/metadata/scheduledevents?api-version=2020-07-01"
        answer = _ask(self.endpoint + path, self._headers, timeout_s=timeout_s)
        self._machine = machine
        return azure_notice(answer.body, machine=machine, now_s=self.now())

    def machine(self, *, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """The name under which scheduled events list this machine."""
        path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
        return _ask(self.endpoint + path, self._headers, timeout_s=timeout_s).body.strip()


def cloud_named(name: str, *, endpoint: str | None, rebalance: bool = True) -> Cloud:
    """The cloud `aws`, `gcp` or `azure`, or for `auto` the one that answers. Raises ClusterError when none does."""
    root = (endpoint or METADATA_SERVICE).rstrip("/")
    if name == "aws":
        return Aws(endpoint=root, rebalance=rebalance)
    if name == "gcp":
        return Gcp(endpoint=root)
    if name == "azure":
        return Azure(endpoint=root)
    if name != "auto":
        raise ClusterError(f"--cloud={name} is none of auto, {', '.join(CLOUDS)}.")
    answering: tuple[tuple[Any, Callable[[Any], bool]], ...] = (
        (Aws(endpoint=root, rebalance=rebalance), _is_aws),
        (Gcp(endpoint=root), _is_gcp),
        (Azure(endpoint=root), _is_azure),
    )
    for cloud, answers in answering:
        try:
            if answers(cloud):
                found: Cloud = cloud
                return found
        except ASK_ERRORS:
            continue
    raise ClusterError(
        f"--cloud=auto: no metadata service of AWS, GCP or Azure answers at {root}, so nobody would announce the loss "
        "of this machine. On a machine of one of these clouds, name it with --cloud; elsewhere leave the watcher out."
    )


def _is_aws(cloud: Aws) -> bool:
    return bool(cloud.new_token(timeout_s=DETECT_TIMEOUT_S))


def _is_gcp(cloud: Gcp) -> bool:
    header = {"Metadata-Flavor": "Google"}
    answer = _ask(f"{cloud.endpoint}/computeMetadata/v1/instance/id", header, timeout_s=DETECT_TIMEOUT_S)
    return answer.headers.get("metadata-flavor") == "Google"


def _is_azure(cloud: Azure) -> bool:
    return bool(cloud.machine(timeout_s=DETECT_TIMEOUT_S))


@dataclass(frozen=True, slots=True)
class _Answer:
    """headers: names in lower case."""

    body: str
    headers: dict[str, str]


def _ask(url: str, headers: dict[str, str], *, method: str = "GET", timeout_s: float = ANSWER_TIMEOUT_S) -> _Answer:
    request = Request(url, headers=headers, method=method)
    with _opener.open(request, timeout=timeout_s) as response:
        return _Answer(response.read().decode(), {name.lower(): value for name, value in response.headers.items()})
