"""Twenty promotions at once, and kills at every call of a promotion and of a registration, on SQLite and on a server.

Whatever happens there is exactly one champion, all files of which are there, and the next command mends the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.mlflow_server import Server
from tests.support.racing import (
    MODEL,
    attached,
    promote_and_be_killed,
    promote_at_once,
    register,
    register_and_be_killed,
    small_model,
)
from tests.support.registered_models import new_store

from pharos.handover.checks import verified_folder
from pharos.track.champion import history, move_champion, settle
from pharos.track.mlflow_client import connect
from pharos.track.model_versions import find_version
from pharos.track.turns import INTENT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
NUM_PROMOTIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A registry at `uri`, with its files below `root`."""

    uri: str
    root: Path

    def add(self, number: int) -> str:
        """Register one more version, a sweep of its own."""
        directory = small_model(self.root / "made" / str(number), seed=number)
        return register(attached(self.uri, self.root / "artifacts", number), directory).version

    def aliases(self) -> dict[str, str]:
        found = connect(self.uri).get_registered_model(MODEL).aliases
        return {alias: str(version) for alias, version in found.items() if alias != "candidate"}

    def assert_complete(self, alias: str = "champion") -> None:
        """The version of this alias has all its files, as they were written: from a server they are fetched anew."""
        found = find_version(self.uri, MODEL, alias=alias)
        fetched = self.root / "fetched"
        verified_folder(found, fetched)
        shutil.rmtree(fetched, ignore_errors=True)

    def left(self) -> list[str]:
        return [key for key in connect(self.uri).get_registered_model(MODEL).tags if key.startswith(INTENT)]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_store(tmp_path_factory.mktemp("store") / "mlflow.db")


@pytest.fixture(params=["sqlite", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path) -> Iterator[Store]:
    directory = tmp_path / "store"
    directory.mkdir()
    shutil.copy(empty_store, directory / "mlflow.db")
    if request.param == "sqlite":
        yield Store(uri=f"sqlite:///{directory / 'mlflow.db'}", root=tmp_path)
        return
    server = Server(directory)
    server.start()
    yield Store(uri=server.uri, root=tmp_path)
    server.kill()


def test_of_twenty_promotions_at_once_one_wins_and_every_other_says_that_it_lost(store: Store) -> None:
    versions = [store.add(number) for number in range(NUM_PROMOTIONS + 1)]
    move_champion(connect(store.uri), MODEL, kind="promote", to=versions[0], expected=None, why="the first")
    outcomes = promote_at_once(store.uri, versions[0], versions[1:])
    print(f"{NUM_PROMOTIONS} promotions at once: all answered within {max(outcome[3] for outcome in outcomes):.1f} s")
    winners = [to for to, outcome, *_ in outcomes if outcome == "won"]
    said = [message for _, outcome, message, _ in outcomes if outcome == "lost"]
    assert len(winners) == 1, outcomes
    assert len(said) == NUM_PROMOTIONS - 1, outcomes
    assert all(f"the champion is now version {winners[0]}, by " in message for message in said)
    assert store.aliases() == {"champion": winners[0], "previous": versions[0]}
    store.assert_complete()
    assert store.left() == []
    assert [move.to for move in history(connect(store.uri).get_registered_model(MODEL).tags)] == [
        versions[0],
        winners[0],
    ]


def test_a_promotion_killed_at_any_call_leaves_one_complete_champion_and_the_next_command_settles_it(
    store: Store,
) -> None:
    client = connect(store.uri)
    versions = [store.add(number) for number in range(3)]
    champion, previous = versions[1], versions[0]
    move_champion(client, MODEL, kind="promote", to=previous, expected=None, why="the first")
    move_champion(client, MODEL, kind="promote", to=champion, expected=previous, why="the second")
    num_kills = num_finished = 0
    for at in range(60):
        after = at % 2 == 0 if store.uri.startswith("http") else True
        to = next(version for version in versions if version not in (champion, previous))
        was_killed = promote_and_be_killed(store.uri, to, champion, at=at, after=after)
        between = store.aliases()
        assert between["champion"] in (champion, to)
        store.assert_complete()
        said = settle(client, MODEL)
        assert len(said) <= 1
        assert store.left() == []
        if store.aliases()["champion"] == to:
            champion, previous, num_finished = to, champion, num_finished + was_killed
        assert store.aliases() == {"champion": champion, "previous": previous}
        store.assert_complete("previous")
        if not was_killed:
            break
        num_kills += 1
    print(f"{num_kills} kills, {num_finished} of them after the alias was moved")
    assert num_kills >= 20
    assert 0 < num_finished < num_kills
    move_champion(client, MODEL, kind="promote", to=previous, expected=champion, why="the end")
    assert store.aliases() == {"champion": previous, "previous": champion}


def test_a_sweep_killed_at_any_call_of_its_registration_completes_it_when_it_runs_again(store: Store) -> None:
    num_kills = 0
    for at in range(60):
        directory = small_model(store.root / "made" / str(at), seed=at)
        was_killed = register_and_be_killed(
            store.uri, store.root / "artifacts", at, directory, at=at // 2, after=at % 2 == 1
        )
        assert_registered_once(store, at, directory)
        if not was_killed:
            break
        num_kills += 1
    print(f"{num_kills} kills")
    assert num_kills >= 20


def test_half_an_upload_is_made_whole_and_an_older_version_of_the_trial_is_not_written_over(store: Store) -> None:
    directory = small_model(store.root / "made" / "half", seed=1)
    assert register_and_be_killed(store.uri, store.root / "artifacts", 1, directory, at=0, after=False, half=True)
    assert_registered_once(store, 1, directory)
    runs = attached(store.uri, store.root / "artifacts", 1)
    other = small_model(store.root / "made" / "other", seed=2)
    runs.client.set_model_version_tag(MODEL, "1", "pharos.digest.spec", "another")
    assert register(runs, other).version == "2"
    store.assert_complete("candidate")
    fetched = verified_folder(find_version(store.uri, MODEL, version="1"), store.root / "fetched-1")
    assert (fetched / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()


def assert_registered_once(store: Store, number: int, directory: Path) -> None:
    """The same command again leaves one version of the run, whole, under the alias."""
    runs = attached(store.uri, store.root / "artifacts", number)
    registered = register(runs, directory)
    found = runs.client.search_model_versions(f"run_id = '{runs.trial_run_id(0)}'")
    assert [str(version.version) for version in found] == [registered.version]
    assert str(runs.client.get_registered_model(MODEL).aliases["candidate"]) == registered.version
    store.assert_complete("candidate")
