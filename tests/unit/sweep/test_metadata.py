"""The three clouds' metadata services, asked as they want to be asked: served on loopback with their real paths."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from tests.support.metadata_services import FakeCloud, served
from tests.unit.plan.test_notices import PREEMPT

from pharos.errors import ClusterError
from pharos.sweep import metadata
from pharos.sweep.metadata import ASK_ERRORS, Aws, Azure, Cloud, Gcp, cloud_named

CLOUDS: dict[str, Callable[..., Cloud]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


@pytest.mark.parametrize("kind", CLOUDS)
def test_auto_finds_the_cloud_that_answers(kind: str) -> None:
    with served(FakeCloud(kind=kind)) as cloud:
        assert isinstance(cloud_named("auto", endpoint=cloud.endpoint), CLOUDS[kind])


def test_where_no_cloud_answers_the_message_says_so_and_what_to_do() -> None:
    with served(FakeCloud(kind="aws", fails=True)) as cloud, pytest.raises(ClusterError) as raised:
        cloud_named("auto", endpoint=cloud.endpoint)
    assert raised.value.exit_code == 2
    assert f"no metadata service of AWS, GCP or Azure answers at {cloud.endpoint}" in raised.value.message
    assert "--cloud" in raised.value.message
    with pytest.raises(ClusterError, match="--cloud=ibm is none of auto, aws, gcp, azure"):
        cloud_named("ibm", endpoint=None)


def test_aws_is_asked_with_a_token_and_for_a_new_one_when_its_life_is_over() -> None:
    with served(FakeCloud(kind="aws")) as cloud:
        aws = Aws(endpoint=cloud.endpoint)
        assert aws.ask(hold_s=0) is None
        assert aws.ask(hold_s=0) is None
        assert cloud.asked.count("PUT /latest/api/token") == 1, "one token serves for hours"
        cloud.token = "token-2"
        cloud.instance_action = {"action": "terminate", "time": "2026-11-21T08:22:00Z"}
        notice = aws.ask(hold_s=0)
    assert notice is not None
    assert notice.text.startswith("AWS is to terminate")
    assert cloud.asked.count("PUT /latest/api/token") == 2


def test_a_rebalance_recommendation_is_a_notice_unless_it_is_not_wanted() -> None:
    with served(FakeCloud(kind="aws", rebalance={"noticeTime": "2026-11-21T08:22:00Z"})) as cloud:
        wanted = Aws(endpoint=cloud.endpoint).ask(hold_s=0)
        cloud.asked.clear()
        unwanted = Aws(endpoint=cloud.endpoint, rebalance=False).ask(hold_s=0)
    assert wanted is not None
    assert wanted.deadline_s is None
    assert unwanted is None
    assert not [asked for asked in cloud.asked if "rebalance" in asked]


def test_gcp_holds_the_question_until_the_machine_is_preempted() -> None:
    with served(FakeCloud(kind="gcp")) as cloud:
        gcp = Gcp(endpoint=cloud.endpoint, now=lambda: 1000.0)
        assert gcp.ask(hold_s=60) is None, "the first question finds out how things stand"
        heard = []
        asking = threading.Thread(target=lambda: heard.append(gcp.ask(hold_s=60)))
        asking.start()
        while not any("wait_for_change=true" in asked for asked in cloud.asked):
            assert asking.is_alive()
            time.sleep(0.01)
        assert not heard
        cloud.preempt_gcp()
        asking.join(timeout=20)
    assert [notice.deadline_s for notice in heard if notice] == [1030.0]


def test_azure_asks_for_its_own_name_once_and_hears_only_of_itself() -> None:
    with served(FakeCloud(kind="azure", events=[PREEMPT | {"Resources": ["workers_4"]}])) as cloud:
        azure = Azure(endpoint=cloud.endpoint)
        assert azure.ask(hold_s=0) is None
        cloud.events = [PREEMPT]
        notice = azure.ask(hold_s=0)
    assert notice is not None
    assert "workers_3" in notice.text
    assert sum("compute/name" in asked for asked in cloud.asked) == 1


@pytest.mark.parametrize("kind", CLOUDS)
def test_a_service_in_trouble_raises_and_never_says_that_there_is_no_notice(kind: str) -> None:
    with served(FakeCloud(kind=kind)) as cloud:
        asked = CLOUDS[kind](endpoint=cloud.endpoint)
        assert asked.ask(hold_s=0) is None
        cloud.fails = True
        with pytest.raises(ASK_ERRORS):
            asked.ask(hold_s=0)
    with pytest.raises(ASK_ERRORS):  # nothing listens there any more
        asked.ask(hold_s=0)


@pytest.mark.parametrize("kind", CLOUDS)
def test_the_services_of_the_tests_refuse_who_does_not_send_the_header(kind: str) -> None:
    paths = {
        "aws": "/latest/meta-data/spot/instance-action",
        "gcp": "/computeMetadata/v1/instance/preempted",
        "azure": "/metadata/scheduledevents?api-version=2020-07-01",
    }
    with served(FakeCloud(kind=kind)) as cloud, pytest.raises(OSError, match="HTTP Error 40[013]"):
        metadata._ask(cloud.endpoint + paths[kind], {})
