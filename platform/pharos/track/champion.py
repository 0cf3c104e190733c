"""Moving the alias `champion`, safely against crashes and against others who do so at once.

Every move has its turn (`turns.py`) and goes through these states; a crash may come between any two writes:

| # | written                                | a crash after it leaves                 | the next command             |
|---|----------------------------------------|-----------------------------------------|------------------------------|
| 1 | an intent without a plan               | nothing changed                         | deletes the intent           |
| 2 | the plan: from, to, `previous` by then | nothing changed                         | takes back: deletes it       |
| 3 | `previous` := the champion             | `champion` stays, `previous` equals it  | takes back: `previous` again |
| 4 | `champion` := the new one              | the new champion without all its tags   | finishes: tags and history   |
| 5 | who, when, why, from what: as tags     | the same                                | finishes                     |
| 6 | the history entry, the intent deleted  | done                                    | -                            |

The one write that decides is 4, of one row: at every moment `champion` names one version, which was verified before. A
move that finds another champion than the one it was compared with has **lost**: it says so and changes nothing. So
where two race, the first turn wins. After 4 it reads back. What a store that can only write and read leaves open: a
process that is stopped for longer than a lease between the check before a write and the write. There is one champion
then too, and whoever lost says so when it reads back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pharos.errors import HandOverError
from pharos.track.turns import Turn, Waiting, delete_tag, intents, patiently, turn_at, utc_now

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, PREVIOUS = "champion", "previous"
HISTORY = "pharos.move."
PROMOTED = "pharos.promoted."

Kind = Literal["promote", "rollback"]


class Lost(HandOverError):
    """Another move came first; this one changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of the champion, as planned and as recorded. before: the champion that it replaces, none at first.

    number: of the model's moves, from 1. previous: what the alias `previous` named before. when: UTC.
    """

    number: int
    kind: Kind
    to: str
    before: str | None
    previous: str | None
    who: str
    when: str
    why: str
    forced: bool = False


def move_champion(
    client: MlflowClient,
    model: str,
    *,
    kind: Kind,
    to: str,
    expected: str | None,
    why: str,
    forced: bool = False,
    waiting: Waiting | None = None,
) -> tuple[Move, list[str]]:
    """Make version `to` the champion in place of `expected`, and that one `previous`.

    Returns the move and what had to be settled of crashed ones, each in a sentence. Raises Lost when the champion is
    another than `expected` (none: that there is no champion), TurnLost, and what the store raises.
    """
    with turn_at(client, model, waiting=waiting) as turn:
        settled = _settle_left(turn)
        found = patiently(lambda: client.get_registered_model(model), turn.sleep)
        if _named(found, CHAMPION) != expected:
            raise Lost(_lost(client, model, to, expected, _named(found, CHAMPION)))
        move = Move(
            number=len(history(found.tags)) + 1,
            kind=kind,
            to=to,
            before=expected,
            previous=_named(found, PREVIOUS),
            who=turn.intent.who,
            when=utc_now(),
            why=why,
            forced=forced,
        )
        turn.plan(asdict(move))
        if expected is not None:
            turn.write(lambda: client.set_registered_model_alias(model, PREVIOUS, expected))
        turn.write(lambda: client.set_registered_model_alias(model, CHAMPION, to))
        found = patiently(lambda: client.get_registered_model(model), turn.sleep)
        if _named(found, CHAMPION) != to or turn.intent.id not in {one.id for one in intents(found.tags)}:
            raise Lost(_lost(client, model, to, expected, _named(found, CHAMPION)))
        _record(turn, move)
    return move, settled


def settle(
    client: MlflowClient,
    model: str,
    *,
    waiting: Waiting | None = None,
) -> list[str]:
    """Finish or take back what crashed commands left at `model`; what was done, in sentences. Waits for the living."""
    if not intents(client.get_registered_model(model).tags):
        return []
    with turn_at(client, model, waiting=waiting) as turn:
        return _settle_left(turn)


def history(tags: Mapping[str, str]) -> list[Move]:
    """The moves of a registered model, oldest first, from its tags."""
    return [Move(**json.loads(text)) for key, text in sorted(tags.items()) if key.startswith(HISTORY)]


def _settle_left(turn: Turn) -> list[str]:
    """Settle every intent of a dead process. Each step may be repeated: this process may crash here too."""
    done = []
    for intent in turn.left:
        if intent.plan is not None:
            done.append(_settle(turn, Move(**intent.plan)))
        turn.check()
        delete_tag(turn.client, turn.model, intent.key, turn.sleep)
    return done


def _settle(turn: Turn, move: Move) -> str:
    client, model = turn.client, turn.model
    found = patiently(lambda: client.get_registered_model(model), turn.sleep)
    champion = _named(found, CHAMPION)
    what = f"{'A promotion' if move.kind == 'promote' else 'A roll-back'} of {model} to version {move.to}"
    what += f" by {move.who} ({move.when}) was cut off"
    if champion == move.to:
        _record(turn, move)
        return f"{what} after it had moved the champion: it is finished now."
    if champion != move.before:
        return f"{what}, and the champion has been moved to version {champion} since: it is left as it is."
    if move.previous is not None:
        previous = move.previous
        turn.write(lambda: client.set_registered_model_alias(model, PREVIOUS, previous))
    elif PREVIOUS in found.aliases:
        turn.write(lambda: client.delete_registered_model_alias(model, PREVIOUS))
    return f"{what} before it had moved the champion: it is taken back."


def _record(turn: Turn, move: Move) -> None:
    """Who, when, why and from what: as tags of the version, and as an entry of the model's history."""
    client, model = turn.client, turn.model
    tags = {
        "by": move.who,
        "at": move.when,
        "why": move.why,
        "from": move.before or "none",
        "how": "forced" if move.forced else move.kind,
    }
    for name, value in tags.items():
        turn.beat()
        turn.write(partial(client.set_model_version_tag, model, move.to, PROMOTED + name, value))
    entry = json.dumps(asdict(move), sort_keys=True)
    turn.write(lambda: client.set_registered_model_tag(model, f"{HISTORY}{move.number:06d}", entry))


def _named(registered: Any, alias: str) -> str | None:
    """The version that an alias of a registered model names."""
    version = registered.aliases.get(alias)
    return None if version is None else str(version)


def _lost(client: MlflowClient, model: str, to: str, expected: str | None, champion: str | None) -> str:
    """Why this move lost, with the name of the winner where the store has it."""
    was = f"version {expected}" if expected is not None else "there was none"
    now = f"version {champion}" if champion is not None else "there is none"
    winner = ""
    if champion is not None:
        tags = client.get_model_version(model, champion).tags
        if f"{PROMOTED}by" in tags:
            winner = f", by {tags[f'{PROMOTED}by']} at {tags.get(f'{PROMOTED}at')}"
    return (
        f"{model} version {to} is not the champion: another command came first. It was compared with the champion of "
        f"then ({was}); the champion is now {now}{winner}. Nothing was changed. Run it again to compare with that one."
    )
