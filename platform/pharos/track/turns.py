"""Taking turns at the aliases of a registered model, over a store that can only write, read and delete tags.

MLflow has no compare-and-swap, so turns are Lamport's bakery (1974), which needs none. Whoever wants one:

1. writes an **intent**, a tag `pharos.intent.<id>` of the registered model, without a ticket ("choosing");
2. reads all intents and writes its ticket, one more than the highest (two may draw the same: the lower id goes first);
3. waits until nobody is choosing and nobody with a lower (ticket, id) is there. Then it is alone, and stays so until it
   deletes its intent. Someone who comes later has seen its ticket, and so draws a higher one.

A crash leaves an intent behind. It is **dead**, and no longer waited for, once its process is gone (where host, boot
and process namespace are this process's own) or else once a waiter has seen it unchanged for WATCH_S on its own clock.
So no two machines' clocks are ever compared. The other half of that lease: whoever holds or awaits a turn writes its
intent anew every BEAT_S, and starts no write when HOLD_S have passed since the last time. A call ends within CALL_S,
so all that it ever writes is there before someone else can take it for dead: HOLD_S + CALL_S < WATCH_S.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from pharos.errors import HandOverError
from pharos.track.mlflow_client import request_limits

if TYPE_CHECKING:
    from mlflow import MlflowClient

INTENT = "pharos.intent."
HOLD_S, CALL_S, WATCH_S = 10.0, 25.0, 45.0
BEAT_S = 3.0
POLL_S = 0.1
REQUEST_TIMEOUT_S = 10
LOCKED_S = 5.0
"""How long a call is made again whose SQLite file is locked. MLflow itself waits for 20 s in each."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A process, as far as another may tell whether it still lives. started: seconds since the epoch."""

    host: str
    boot: str
    namespace: int
    pid: int
    started: float

    @classmethod
    def own(cls) -> Place:
        boot = Path("/proc/sys/kernel/random/boot_id")
        namespace = Path("/proc/self/ns/pid")
        return cls(
            host=socket.gethostname(),
            boot=boot.read_text().strip() if boot.exists() else str(psutil.boot_time()),
            namespace=namespace.stat().st_ino if namespace.exists() else 0,
            pid=os.getpid(),
            started=psutil.Process().create_time(),
        )

    def is_gone(self, own: Place) -> bool:
        """Whether it has certainly ended. False where that cannot be told from the process `own`."""
        if (self.host, self.boot, self.namespace) != (own.host, own.boot, own.namespace):
            return False
        try:
            process = psutil.Process(self.pid)
            return bool(process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 1)
        except psutil.NoSuchProcess:
            return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a process means to do with the aliases. ticket: 0 while it chooses; plan: once it is alone, JSON."""

    id: str
    who: str
    when: str
    place: Place
    ticket: int = 0
    beat: int = 0
    plan: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        return INTENT + self.id

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Intent:
        values = json.loads(text)
        return cls(**values | {"place": Place(**values["place"])})


class TurnLost(HandOverError):
    """This process stood still for so long that others may take it for dead: it must not write any more."""


@dataclass(slots=True, kw_only=True)
class Turn:
    """This process's turn at a registered model. left: intents of the dead, to be settled before anything is moved."""

    client: MlflowClient
    model: str
    intent: Intent
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    last_beat_s: float = 0.0
    left: list[Intent] = field(default_factory=list)
    _watched: dict[str, tuple[str, float]] = field(default_factory=dict)

    def take(self) -> None:
        """Come in, draw a ticket and wait. Raises TurnLost."""
        self.last_beat_s = self.clock()
        self._write(self.intent)
        highest = max((other.ticket for other in self._others()), default=0)
        self._write(replace(self.intent, ticket=highest + 1))
        while living := self._ahead():
            self.sleep(POLL_S * min(10, len(living)))
            if self.clock() - self.last_beat_s > BEAT_S:
                self.beat()
        self.beat()

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Write what is going to be done, before it is done."""
        self._write(replace(self.intent, plan=plan, beat=self.intent.beat + 1))

    def beat(self) -> None:
        self._write(replace(self.intent, beat=self.intent.beat + 1))

    def check(self) -> None:
        """Raise TurnLost unless this process may still write."""
        if self.clock() - self.last_beat_s > HOLD_S:
            raise TurnLost(
                f"{self.model}: this process stood still for {self.clock() - self.last_beat_s:.0f} s in the middle of "
                "the hand-over, so another may have taken its place. Look with `pharos models`, and run it again."
            )

    def write(self, call: Callable[[], Answer]) -> Answer:
        """One write to the store, while this process may."""
        self.check()
        return patiently(call, self.sleep)

    def leave(self) -> None:
        delete_tag(self.client, self.model, self.intent.key, self.sleep)

    def _write(self, intent: Intent) -> None:
        begun_s = self.clock()
        self.write(lambda: self.client.set_registered_model_tag(self.model, intent.key, intent.text()))
        self.intent, self.last_beat_s = intent, begun_s

    def _others(self) -> list[Intent]:
        found = intents(patiently(lambda: self.client.get_registered_model(self.model), self.sleep).tags)
        if self.intent.id not in {intent.id for intent in found}:
            raise TurnLost(f"{self.model}: another process took this one for dead. Nothing was changed; run it again.")
        return [intent for intent in found if intent.id != self.intent.id]

    def _ahead(self) -> list[Intent]:
        """Those that live and go first. The dead are remembered, whatever their ticket: they are to be settled."""
        mine = (self.intent.ticket, self.intent.id)
        others = self._others()
        dead = {intent.id for intent in others if self._is_dead(intent)}
        self.left = [intent for intent in others if intent.id in dead]
        return [other for other in others if other.id not in dead and (other.ticket, other.id) < mine]

    def _is_dead(self, intent: Intent) -> bool:
        text = intent.text()
        seen, since_s = self._watched.get(intent.id, ("", 0.0))
        if seen != text:
            since_s = self.clock()
            self._watched[intent.id] = (text, since_s)
        return self.clock() - since_s > WATCH_S or intent.place.is_gone(self.intent.place)


def now_s() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Who waits, and by which clock."""

    place: Place
    clock: Callable[[], float] = now_s
    sleep: Callable[[float], None] = time.sleep


@contextmanager
def turn_at(
    client: MlflowClient,
    model: str,
    *,
    waiting: Waiting | None = None,
) -> Iterator[Turn]:
    """Be the only process that touches the aliases of `model` inside the block; waits for those before.

    The intent is taken away at the end, unless a plan was written and not carried out: that is for the next to settle.
    Raises TurnLost, and what the store raises.
    """
    waiting = waiting or Waiting(place=Place.own())
    intent = Intent(id=uuid.uuid4().hex, who=whoami(), when=utc_now(), place=waiting.place)
    turn = Turn(client=client, model=model, intent=intent, clock=waiting.clock, sleep=waiting.sleep)
    with request_limits(timeout_s=REQUEST_TIMEOUT_S, max_retries=0):
        try:
            turn.take()
            yield turn
        except BaseException:
            if turn.intent.plan is None:
                with suppress(Exception):  # the store may be away: the intent that stays is one of the dead
                    turn.leave()
            raise
        turn.leave()


def intents(tags: Mapping[str, str]) -> list[Intent]:
    """The intents among the tags of a registered model."""
    return [Intent.parse(text) for key, text in sorted(tags.items()) if key.startswith(INTENT)]


def patiently(call: Callable[[], Answer], sleep: Callable[[float], None]) -> Answer:
    """The answer of a call that may be repeated; again where a SQLite file is locked by another process."""
    from mlflow.exceptions import MlflowException

    begun_s = now_s()
    while True:
        try:
            return call()
        except MlflowException as error:
            if "database is locked" not in str(error) or now_s() - begun_s > LOCKED_S:
                raise
        sleep(POLL_S)


def delete_tag(client: MlflowClient, model: str, key: str, sleep: Callable[[float], None]) -> None:
    """Delete a tag of a registered model, whether or not it is still there."""
    from mlflow.exceptions import MlflowException

    try:
        patiently(lambda: client.delete_registered_model_tag(model, key), sleep)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def whoami() -> str:
    """user@host, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
