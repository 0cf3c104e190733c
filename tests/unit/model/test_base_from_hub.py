"""A base by hub id, really downloaded by huggingface_hub: what a plan fetches, what training fetches, and refusals."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tests.support.hub_server import HubServer
from tests.unit.model.conftest import MakeBase
from tests.unit.model.test_base import put_in_hub_cache, resolve

from pharos.model.facts import base_facts

RESOLVE = """
import json, sys
from pathlib import Path
from pharos.errors import BaseModelError
from pharos.model.base import resolve_base
from pharos.spec.model import SweepSpec
for words in sys.argv[2:]:
    base, _, revision = words.partition("@")
    fields = {"name": "s", "base": base, "revision": revision or None, "data": {"train": "t.jsonl"}}
    spec = SweepSpec.model_validate(fields)
    try:
        print(resolve_base(spec, root=Path(), cache_dir=Path("cache"), build=sys.argv[1] == "build"))
    except BaseModelError as error:
        print(error.message)
"""
OPEN = "import sys, torch; from pathlib import Path; from pharos.model.loading import load_model; " + (
    "print(load_model(Path(sys.argv[1]), dtype=torch.float32).num_parameters())"
)
SWEEP = 'name: s\nbase: owner/llama\nrevision: "{}"\ndata: {{train: t.jsonl, max_length: 96}}\n' + (
    "search: {{num_trials: 2, space: {{optim.learning_rate: {{log_uniform: [1e-5, 1e-2]}}}}}}\n"
)


def resolved(hub: HubServer, root: Path, how: str, *bases: str, **variables: str) -> list[str]:
    """Folder or message for each BASE[@REVISION], by a process with the cache of earlier ones. It prints no more."""
    done = hub.run("-c", RESOLVE, how, *bases, home=root / "home", cwd=root, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_a_base_is_planned_by_id_and_commit_without_its_weights(
    hub: HubServer, make_base: MakeBase, tokenizer_dir: Path, tmp_path: Path, cache_dir: Path
) -> None:
    # Sharded, as all but the smallest are: the index of the shards is there before they are.
    base = make_base(max_shard_size="20KB", tokenizer=tokenizer_dir)
    commit = hub.publish("models", "owner/llama", base)
    (base / "config.json").write_text("{}")
    hub.publish("models", "owner/llama", base)
    row = json.dumps({"question": "Where is the lamp?", "answer": "On the cliff."})
    (tmp_path / "t.jsonl").write_text("".join(row.replace("lamp", f"lamp {number}") + "\n" for number in range(40)))
    (tmp_path / "s.yaml").write_text(SWEEP.format(commit))
    command = ("-m", "pharos", "plan", "s.yaml")
    plan = hub.run(*command, home=tmp_path / "home", cwd=tmp_path, PHAROS_CACHE=str(cache_dir))
    assert (plan.returncode, plan.stderr) == (0, "")
    assert "(estimated)" in plan.stdout
    asked = {request.path.rpartition("/")[2] for request in hub.requests}
    assert {"config.json", "tokenizer.json"} <= asked
    assert not any(name.endswith(".safetensors") for name in asked)
    hub.stop()
    again = hub.run(*command, home=tmp_path / "home", cwd=tmp_path, PHAROS_CACHE=str(cache_dir))
    assert (again.returncode, again.stderr, again.stdout) == (0, "", plan.stdout)


def test_a_base_is_downloaded_whole_by_commit_and_opened_then_found_without_the_hub(
    hub: HubServer, make_base: MakeBase, tmp_path: Path
) -> None:
    base = make_base(max_shard_size="20KB")
    expected = digests(base)
    commit = hub.publish("models", "owner/llama", base)
    shutil.rmtree(base)
    hub.publish("models", "owner/llama", make_base(hidden_size=16))
    named = f"owner/llama@{commit}"
    [planned] = resolved(hub, tmp_path, "plan", named)
    [folder] = resolved(hub, tmp_path, "build", named)
    assert planned == folder
    assert digests(Path(folder)) == expected
    opened = hub.run("-c", OPEN, folder, home=tmp_path / "home", cwd=tmp_path)
    assert opened.returncode == 0, opened.stderr
    facts = base_facts(named, Path(folder))
    assert (int(opened.stdout), facts.estimated) == (facts.num_parameters, False)
    [newest] = resolved(hub, tmp_path, "build", "owner/llama")
    assert newest != folder
    hub.stop()
    assert resolved(hub, tmp_path, "build", named, "owner/llama") == [folder, newest]


def test_what_the_hub_does_not_have_or_not_show_is_said_with_what_helps(
    hub: HubServer, make_base: MakeBase, tmp_path: Path
) -> None:
    base = make_base()
    hub.publish("models", "owner/llama", base)
    hub.publish("models", "owner/gated", base, access="gated", tokens=("hf_ours",))
    hub.publish("models", "owner/private", base, access="private", tokens=("hf_theirs",))
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    nowhere = "0123456789" * 4
    gate = f"base=owner/gated is gated: accept its licence on the hub, then {log_in}."
    expected = {
        "owner/none": "base=owner/none: there is no directory owner/none, and the hub has no such model (or a private "
        f"one: {log_in}).",
        "owner/private": "base=owner/private: there is no directory owner/private, and the hub has no such model (or a "
        f"private one: {log_in}).",
        "owner/gated": gate,
        f"owner/llama@{nowhere}": f"base=owner/llama, revision={nowhere}: the hub has no such revision of it.",
    }
    assert resolved(hub, tmp_path, "plan", *expected) == list(expected.values())
    assert resolved(hub, tmp_path, "plan", "owner/gated", HF_TOKEN="hf_theirs") == [gate]
    [unknown] = resolved(hub, tmp_path, "plan", "owner/private", HF_TOKEN="hf_of_yesterday")
    assert unknown == f"base=owner/private: the hub refuses the token that it was sent. Use another: {log_in}."
    for name, token in (("owner/gated", "hf_ours"), ("owner/private", "hf_theirs")):
        [folder] = resolved(hub, tmp_path, "build", name, HF_TOKEN=token)
        assert digests(Path(folder)) == digests(base)


def test_a_hub_that_is_away_is_asked_once(hub: HubServer, make_base: MakeBase, tmp_path: Path) -> None:
    hub.publish("models", "owner/llama", make_base())
    hub.is_broken = True
    commit = "0123456789" * 4
    where = "is neither a directory (owner/llama) nor whole in the hub's cache, and the hub cannot be reached"
    remedy = "Name a directory, or connect and run again."
    assert resolved(hub, tmp_path, "build", "owner/llama", f"owner/llama@{commit}") == [
        f"base=owner/llama {where} (it answers with code 503). {remedy}",
        f"base=owner/llama, revision={commit} {where} (it answers with code 503). {remedy}",
    ]
    assert len(hub.requests) == 2
    hub.stop()
    [gone] = resolved(hub, tmp_path, "build", f"owner/llama@{commit}")
    assert gone == f"base=owner/llama, revision={commit} {where} ([Errno 111] Connection refused). {remedy}"


@pytest.mark.parametrize("num_missing", [1, 100])
def test_a_download_that_stopped_halfway_can_be_planned(make_base: MakeBase, tmp_path: Path, num_missing: int) -> None:
    snapshot = put_in_hub_cache(make_base(max_shard_size="20KB", bias=False, attention_bias=False), tmp_path)
    for file in sorted(snapshot.glob("*.safetensors"))[:num_missing]:
        file.unlink()
    assert resolve("org/model", tmp_path, build=False) == snapshot
    facts = base_facts("org/model", snapshot)
    assert facts.estimated
    (snapshot / "model.safetensors.index.json").unlink()
    assert base_facts("org/model", snapshot) == facts
