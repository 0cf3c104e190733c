"""The watcher goes on after every error, says each, and marks the node once for each notice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.support.command_line import Pharos
from tests.support.metadata_services import FakeCloud, served

from pharos.errors import ClusterError
from pharos.plan.notices import Notice
from pharos.sweep.draining import RayNode, choose_node, drain, gcs_address
from pharos.sweep.notices import Watcher

LATE = Notice(key="late", text="the end is near", deadline_s=30.0)
EARLY = Notice(key="early", text="better leave", deadline_s=None)
HEAD = RayNode(node_id="cd" * 28, address="10.0.0.1", is_head=True)


@dataclass(slots=True)
class Script:
    """A cloud that says what a test wrote down, and after that nothing new; its clock stands unless a test moves it."""

    says: deque[Notice | Exception | None]
    name: str = "Fake"
    holds: bool = False
    now_s: float = 0.0
    lines: list[str] = field(default_factory=list)

    def ask(self, *, hold_s: float) -> Notice | None:
        said = self.says.popleft() if self.says else None
        if isinstance(said, Exception):
            raise said
        return said

    def watcher(self, mark: Callable[[Notice], str]) -> Watcher:
        return Watcher(cloud=self, mark=mark, say=self.lines.append, poll_s=5.0, now=lambda: self.now_s)


def test_a_notice_is_acted_on_once_and_a_later_one_again() -> None:
    marked: list[str] = []
    script = Script(deque([None, EARLY, EARLY, LATE, LATE]))
    watcher = script.watcher(lambda notice: marked.append(notice.key) or f"marked {notice.key}")
    pauses = [watcher.step() for _ in range(6)]
    assert marked == ["early", "late"]
    assert script.lines == ["better leave", "marked early", "the end is near", "marked late"]
    assert pauses == [5.0] * 6


def test_a_failing_metadata_service_is_asked_again_ever_more_seldom_and_its_return_is_said() -> None:
    script = Script(deque([OSError("connection refused")] * 12 + [None, LATE]))
    watcher = script.watcher(lambda notice: "marked")
    pauses = [watcher.step() for _ in range(13)]
    assert pauses[:5] == [5.0, 10.0, 20.0, 30.0, 30.0]
    assert pauses[12] == 5.0
    failures = [line for line in script.lines if "does not answer" in line]
    assert len(failures) == 2, "said at once, and again after ten, not each time"
    assert "connection refused" in failures[0]
    assert script.lines[-1] == "Fake's metadata service answers again"
    watcher.step()
    assert script.lines[-1] == "marked"


def test_marking_is_tried_every_second_until_it_works_or_the_time_is_over() -> None:
    script = Script(deque([LATE]))
    tries: list[Notice] = []

    def mark(notice: Notice) -> str:
        tries.append(notice)
        if len(tries) < 3:
            raise RuntimeError("the GCS is away\nand more")
        return "marked"

    watcher = script.watcher(mark)
    assert [watcher.step() for _ in range(3)] == [1.0, 1.0, 5.0]
    assert script.lines[1] == "cannot mark this node as draining: the GCS is away; trying again"
    assert script.lines[-1] == "marked"

    script = Script(deque([LATE, LATE]))
    tries.clear()
    watcher = script.watcher(lambda notice: (_ for _ in ()).throw(RuntimeError("no")))
    watcher.step()
    script.now_s = 31.0
    assert watcher.step() == 5.0
    assert "could not mark this node as draining before the notice's time was over: no" in script.lines[-1]
    watcher.step()
    assert len(script.lines) == 3, "and the same notice is not begun again"


def test_what_ends_the_program_is_no_failure_to_be_tried_again() -> None:
    def end(notice: Notice) -> str:
        raise SystemExit

    with pytest.raises(SystemExit):
        Script(deque([LATE])).watcher(end).step()


def test_a_service_that_held_the_question_is_asked_on_at_once_and_one_that_did_not_is_not() -> None:
    script = Script(deque(), holds=True)
    watcher = script.watcher(lambda notice: "marked")
    assert watcher.step() == 5.0, "it answered at once: no loop without a pause"

    def held(*, hold_s: float) -> None:
        script.now_s += hold_s

    watcher.cloud = _Held(held)
    assert watcher.step() == 0.0


@dataclass(slots=True)
class _Held:
    ask: Callable[..., Notice | None]
    name: str = "Fake"
    holds: bool = True


def test_the_head_is_not_drained_for_a_mere_recommendation() -> None:
    assert "not drained" in drain(HEAD, EARLY, gcs="127.0.0.1:1")


def test_the_node_is_the_one_with_an_address_of_this_machine() -> None:
    worker, other = (RayNode(node_id=id_ * 56, address=f"10.0.0.{id_}", is_head=False) for id_ in "78")

    def chosen(*alive: RayNode, own: tuple[str, ...], node_id: str | None = None) -> RayNode:
        return choose_node(alive, gcs="10.0.0.1:6379", own=own, node_id=node_id)

    assert chosen(HEAD, worker, other, own=("127.0.0.1", "10.0.0.7")) == worker
    assert chosen(HEAD, worker, other, own=("10.0.0.1",)) == HEAD
    beside_the_head = RayNode(node_id="9" * 56, address="10.0.0.1", is_head=False)
    assert chosen(HEAD, beside_the_head, own=("10.0.0.1",)) == beside_the_head
    assert chosen(HEAD, worker, own=(), node_id=worker.node_id) == worker
    with pytest.raises(ClusterError, match="no living node of the cluster at 10.0.0.1:6379 is on this machine"):
        chosen(HEAD, worker, own=("10.0.0.99",))
    with pytest.raises(ClusterError, match="several nodes .* run on this machine"):
        chosen(worker, other, own=("10.0.0.7", "10.0.0.8"))
    with pytest.raises(ClusterError, match="--node-id=nobody is no living node"):
        chosen(HEAD, own=("10.0.0.1",), node_id="nobody")


def test_without_a_cloud_the_verb_says_so_and_ends_with_2(pharos: Pharos) -> None:
    with served(FakeCloud(kind="aws", fails=True)) as cloud:
        code, _, errors = pharos("watch-notices", "--endpoint", cloud.endpoint)
    assert code == 2
    assert "no metadata service of AWS, GCP or Azure answers" in errors


def test_an_address_at_which_nothing_listens_is_said_at_once() -> None:
    with pytest.raises(ClusterError, match="--address=127.0.0.1:1 does not answer"):
        gcs_address("127.0.0.1:1")
