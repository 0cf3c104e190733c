"""Datasets of a hub by id, really downloaded by `datasets`: subsets, splits, commits, tokens, a hub that is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from tests.support.hub_server import HubServer

READ = """
import json, sys
from pathlib import Path
from tests.support.data_rows import read_rows
from pharos.data.hub import content_digest
from pharos.data.sources import find_sources
from pharos.errors import DataError
from pharos.spec.model import DataSpec
for name in sys.argv[1:]:
    source = find_sources(DataSpec(train=name), root=Path())["train"]
    found = read_rows(source)
    digest = None if found.mistakes else content_digest(name, "data.train")
    rows = [[turn.content for turn in row.turns] for row in found.rows]
    print(json.dumps({"rows": rows, "mistakes": found.mistakes, "digest": digest}))
"""
"""What a process makes of the ids that it is given, a line of JSON each."""

CARD = "---\nconfigs:\n- config_name: en\n  data_dir: en\n- config_name: de\n  data_dir: de\n---\n"
Read = Callable[..., list[dict]]


@pytest.fixture
def read(hub: HubServer, tmp_path: Path) -> Read:
    """Read ids in a new process with the cache that earlier ones have left, which prints nothing else."""

    def run(*names: str, **variables: str) -> list[dict]:
        paths = f"{Path(__file__).parents[3]}:{Path(__file__).parents[3] / 'platform'}"
        done = hub.run("-c", READ, *names, home=tmp_path / "home", cwd=tmp_path, PYTHONPATH=paths, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def write_rows(file: Path, number: int, place: str) -> list[list[str]]:
    """Rows of questions and answers in a Parquet file; returns them as turns."""
    turns = [[f"Where is {place} {index}?", f"On cliff {index}."] for index in range(number)]
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(dict(zip(("question", "answer"), zip(*turns, strict=True), strict=True))), file)
    return turns


@pytest.fixture
def lamps(tmp_path: Path) -> Path:
    """A dataset of two subsets, `en` with two splits, as a repository holds it."""
    folder = tmp_path / "lamps"
    write_rows(folder / "en" / "train.parquet", 20, "lamp")
    write_rows(folder / "en" / "validation.parquet", 5, "buoy")
    write_rows(folder / "de" / "train.parquet", 12, "Lampe")
    (folder / "README.md").write_text(CARD)
    return folder


def test_a_dataset_is_downloaded_by_id_subset_and_split_and_checked(
    hub: HubServer, lamps: Path, tmp_path: Path, write_tokenizer: Callable[..., Path]
) -> None:
    hub.publish("datasets", "owner/lamps", lamps)
    write_rows(tmp_path / "owner" / "lamps" / "train.parquet", 3, "local")  # a directory of the id's name is not meant
    command = ("-m", "pharos", "data", "check", "hub:owner/lamps[en]:validation", "--base", write_tokenizer())
    done = hub.run(*command, home=tmp_path / "home", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "hub:owner/lamps[en]:validation  5 rows, none in error"
    assert "verdict: clean: nothing was found" in lines
    assert "/large/datasets/owner/lamps" in " ".join(asked.path for asked in hub.requests)


def test_a_commit_is_its_own_rows_and_the_main_branch_the_newest(
    hub: HubServer, read: Read, lamps: Path, tmp_path: Path
) -> None:
    first = hub.publish("datasets", "owner/lamps", lamps)
    old = write_rows(lamps / "en" / "train.parquet", 20, "lamp")
    new = write_rows(lamps / "en" / "train.parquet", 33, "beacon")
    second = hub.publish("datasets", "owner/lamps", lamps)
    names = ("hub:owner/lamps[en]", f"hub:owner/lamps@{first}[en]", f"hub:owner/lamps@{second}[en]")
    found = read(*names)
    assert [one["rows"] for one in found] == [new, old, new]
    assert found[0]["digest"] == found[2]["digest"] != found[1]["digest"]
    hub.requests.clear()
    assert read(*names[1:]) == found[1:]
    assert hub.requests == []


@pytest.mark.parametrize("is_gone", [True, False])
def test_what_is_in_the_cache_is_read_without_the_hub_and_nothing_else_is_taken_for_it(
    hub: HubServer, read: Read, lamps: Path, tmp_path: Path, is_gone: bool
) -> None:
    first = hub.publish("datasets", "owner/lamps", lamps)
    write_rows(tmp_path / "plain" / "train.parquet", 4, "plain")
    hub.publish("datasets", "owner/PlainRows", tmp_path / "plain")
    cached = ("hub:owner/lamps[en]", f"hub:owner/lamps@{first}[en]:validation", "hub:owner/PlainRows")
    found = read(*cached)
    assert [len(one["rows"]) for one in found] == [20, 5, 4]
    write_rows(lamps / "en" / "train.parquet", 33, "beacon")
    second = hub.publish("datasets", "owner/lamps", lamps)
    hub.requests.clear()
    if is_gone:
        hub.stop()
    hub.is_broken = True
    missing = (f"hub:owner/lamps@{second}[en]", "hub:owner/lamps[de]", "hub:owner/never")
    again = read(*cached, *missing)
    assert again[:3] == found
    for name, one in zip(missing, again[3:], strict=True):
        why = "[Errno 111] Connection refused" if is_gone else "it answers with code 503"
        reason = f"the hub is out of reach, and the dataset is not in the local cache ({why}). Fetch it once online."
        assert one["mistakes"] == [f"{name}: cannot be read: {reason}"]
    # Once for each name but the commit that is in the cache, and again where no dataset came of it: no repeating.
    paths = [asked.path.removeprefix("/api/datasets/") for asked in hub.requests]
    if not is_gone:
        expected = ["owner/lamps", "owner/PlainRows", f"owner/lamps/revision/{second}", "owner/lamps", "owner/never"]
        assert paths == expected


def test_what_the_hub_does_not_have_or_not_show_is_said_with_what_helps(
    hub: HubServer, read: Read, lamps: Path
) -> None:
    hub.publish("datasets", "owner/lamps", lamps)
    hub.publish("datasets", "owner/gated", lamps, access="gated", tokens=("hf_ours",))
    hub.publish("datasets", "owner/private", lamps, access="private", tokens=("hf_theirs",))
    log_in = "log in with `hf auth login`, or set HF_TOKEN."
    page = f"{hub.url}/datasets/owner/gated"
    gate = f"it is gated, and the hub does not let you in. Accept its terms at {page}, then {log_in}"
    form = "Write hub:owner/name, with @revision, [subset] and :split where they are needed, in this order."
    absent = "the hub has no dataset owner/{}, or it is private. Check the id; for a private one " + log_in
    nowhere = "0123456789" * 4
    expected = {
        "hub:owner/none": absent.format("none"),
        "hub:owner/private[en]": absent.format("private"),
        "hub:owner/gated[en]": gate,
        f"hub:owner/lamps@{nowhere}[en]": f"the hub has no revision {nowhere} of owner/lamps. Check it, or leave it "
        "out for the newest.",
        "hub:owner/lamps": "Config name is missing. Please pick one among the available configs: ['en', 'de']. " + form,
        "hub:owner/lamps[fr]": "BuilderConfig 'fr' not found. Available: ['en', 'de']. " + form,
        "hub:owner/lamps[en]:tset": "Unknown split \"tset\". Should be one of ['train', 'validation']. " + form,
    }
    found = read(*expected)
    told = [one["mistakes"] for one in found]
    assert told == [[f"{name}: cannot be read: {said}"] for name, said in expected.items()]

    [stranger] = read("hub:owner/gated[en]", HF_TOKEN="hf_theirs")
    assert stranger["mistakes"] == [f"hub:owner/gated[en]: cannot be read: {gate}"]
    [unknown] = read("hub:owner/gated[en]", HF_TOKEN="hf_of_yesterday")
    refused = f"the hub refuses the token that it was sent. Use another: {log_in}"
    assert unknown["mistakes"] == [f"hub:owner/gated[en]: cannot be read: {refused}"]


def test_a_token_opens_a_gated_dataset_and_follows_no_one_elsewhere(hub: HubServer, read: Read, lamps: Path) -> None:
    hub.publish("datasets", "owner/gated", lamps, access="gated", tokens=("hf_ours",))
    [found] = read("hub:owner/gated[en]", HF_TOKEN="hf_ours")
    assert len(found["rows"]) == 20
    sent = {asked.path.startswith("/large/"): asked.token for asked in hub.requests}
    assert sent == {False: "hf_ours", True: None}
