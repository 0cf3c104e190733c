"""What a lost pool is said to be lost of, and on which of its workers it began."""

from __future__ import annotations

import ray
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from pharos.sweep.pool import _failed_first, _reason

PARAGRAPH = (
    "The actor died unexpectedly before finishing this task. class_name: RayTrainWorker node_ip_address: 10.0.0.5 "
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
)


def a_death(text: str = PARAGRAPH) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError(text, failure=ray.exceptions.RayActorError())


def test_a_worker_that_died_is_blamed_and_not_those_that_it_left_alone() -> None:
    left = RuntimeError("Connection closed by peer")
    error = WorkerGroupError("several", {0: left, 1: a_death(), 2: left})
    assert _failed_first(error) == (1,)
    assert _reason(error) == "the process of its worker 1 was lost"


def test_a_node_that_went_is_told_from_a_process() -> None:
    error = WorkerGroupError("one", {0: a_death("The actor died because its node has died.")})
    assert _reason(error) == "the node of its worker 0 was lost"


def test_what_workers_raised_is_said_in_one_line() -> None:
    error = WorkerGroupError("both", {0: ValueError("first\nno space left"), 1: ValueError("other")})
    assert _failed_first(error) == (0, 1)
    assert _reason(error) == "ValueError: no space left"


def test_a_lost_controller_blames_no_worker() -> None:
    error = ray.exceptions.ActorDiedError()
    assert _failed_first(error) == ()
    assert _reason(error) == "the process of Ray Train's controller was lost"
