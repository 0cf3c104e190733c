"""What is exported: plain PEFT and transformers load it and give the same logits, and its card says what it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, PeftModel
from tests.support.handed_over import TRIAL, finished_sweep
from tests.support.small_sweep import write_base
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from pharos.cli import app
from pharos.errors import HandOverError, ModelError, StorageError
from pharos.handover import export as exporting
from pharos.handover.card import model_card
from pharos.handover.card_facts import trial_facts
from pharos.handover.export import export, merge
from pharos.handover.references import find_model
from pharos.model.merge import add_card, merge_adapter, verify_manifest
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths, tracking_uri_of
from pharos.track.event_log import EventLog
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.registry import Lineage, register_version

TOKENS = torch.tensor([[5, 17, 3, 90, 44]])
CHAT = [{"role": "user", "content": "please turn the lamp in the hall on"}]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> SweepPaths:
    return finished_sweep(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def expected(paths: SweepPaths) -> torch.Tensor:
    """Logits of base + adapter by stock PEFT, from the files that training left."""
    found = find_model(TRIAL, storage=paths.storage)
    assert found.adapter_dir is not None
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(found.model_dir), found.adapter_dir))


@pytest.fixture(scope="module")
def registered(paths: SweepPaths) -> SweepPaths:
    """The same storage with the trial registered as switch/1, as the end of a sweep does it."""
    runs = MlflowRuns(tracking_uri_of(paths.storage), "pharos", artifact_root=paths.artifacts)
    events = list(EventLog(paths.events).read())
    runs.attach(paths.sweep, events[0].time_s)
    runs.write(events)
    found = find_model(TRIAL, storage=paths.storage)
    assert found.adapter_dir is not None
    merge_adapter(found.model_dir, found.adapter_dir, paths.merged)
    ledger = Ledger.of(events)
    facts = trial_facts(ledger, 0, base_dir=found.model_dir, measured={"parity": 1e-6})
    add_card(paths.merged, model_card(facts, form="merged", folder="merged"))
    assert ledger.started is not None
    metrics = {"parity": 1e-6, "eval_loss": 1.25, "test_loss": 1.5}
    lineage = Lineage(sweep=paths.sweep, trial=0, digests=ledger.started.digests, metrics=metrics)
    register_version(runs, model="switch", merged=paths.merged, adapter=found.adapter_dir, lineage=lineage)
    return paths


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(TOKENS).logits


def chat_text(directory: Path) -> str:
    text = AutoTokenizer.from_pretrained(directory).apply_chat_template(CHAT, tokenize=False)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("reference", [TRIAL, "switch@candidate", "switch/1"])
def test_an_exported_model_loads_in_plain_transformers(
    registered: SweepPaths, expected: torch.Tensor, tmp_path: Path, reference: str
) -> None:
    export(reference, form="merged", output=tmp_path / "out", storage=registered.storage)
    assert (logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")) - expected).abs().max() < 1e-5
    assert "lamp in the hall" in chat_text(tmp_path / "out")
    verify_manifest(tmp_path / "out")
    assert "README.md" in json.loads((tmp_path / "out" / "pharos_manifest.json").read_text())["files"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("reference", [TRIAL, "switch@candidate"])
def test_an_exported_adapter_loads_in_plain_peft_and_finds_its_base(
    registered: SweepPaths, expected: torch.Tensor, tmp_path: Path, reference: str
) -> None:
    export(reference, form="adapter", output=tmp_path / "out", storage=registered.storage)
    base = find_model(TRIAL, storage=registered.storage).model_dir
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    assert (logits(model) - expected).abs().max() < 1e-6
    assert (logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")) - expected).abs().max() < 1e-6
    assert chat_text(tmp_path / "out") == chat_text(base)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "tokenizer.json"} <= files
    assert not files & {"trainer_state.safetensors", "pharos_state.json", "manifest.json"}


@pytest.mark.parametrize("reference", [TRIAL, "switch/1"])
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_card_says_base_licence_data_metrics_and_how_to_load(
    registered: SweepPaths, tmp_path: Path, reference: str, form: exporting.Form
) -> None:
    export(reference, form=form, output=tmp_path / "out", storage=registered.storage)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    header = card.data.to_dict()
    assert header["base_model"] == "base"
    assert header["library_name"] == {"adapter": "peft", "merged": "transformers"}[form]
    assert header["base_model_relation"] == {"adapter": "adapter", "merged": "finetune"}[form]
    assert header["license"] == "other"
    assert header["license_name"] == "see the base"
    assert {"pharos", "lora"} <= set(header["tags"])
    assert [(result.metric_type, result.metric_value) for result in card.data.eval_results or []][:2] == [
        ("eval_loss", 1.25),
        ("test_loss", 1.5),
    ]
    started = Ledger.of(EventLog(registered.events).read()).started
    assert started is not None
    assert f"| digest of data | `{started.digests['data']}` |" in card.text
    assert "| data | `rows.jsonl` |" in card.text
    assert "| learning_rate | 0.001 |" in card.text
    assert "| optimizer steps | 8 |" in card.text
    assert "| r | 4 |" in card.text
    assert "6.5 |" in card.text, "the untrained base, beside it"
    assert f"`pharos rerun {TRIAL}`" in card.text
    code = card.text.split("```python\n")[1].split("```")[0]
    code = code.replace('"out"', repr(str(tmp_path / "out")))
    exec(code, scope := {})
    assert logits(scope["model"]).isfinite().all()


def test_the_licence_of_the_base_is_carried_on(paths: SweepPaths, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(find_model(TRIAL, storage=paths.storage).model_dir, base)
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: sea-1\nlicense_link: LICENSE\n---\n# Base\n")
    export(TRIAL, form="merged", output=tmp_path / "out", storage=paths.storage, base=base)
    header = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert (header["license"], header["license_name"], header["license_link"]) == ("other", "sea-1", "LICENSE")
    (base / "README.md").write_text("---\n: [no yaml\n---\n")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"license": "apache-2.0"}))
    facts = exporting.card_facts(
        replace(find_model(str(base), storage=paths.storage), shown="x"), tracking_uri="sqlite:///unused"
    )
    assert facts.licence is not None
    assert facts.licence.id == "apache-2.0"


def test_a_base_from_the_hub_is_named_by_its_id_and_commit(paths: SweepPaths, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    base = tmp_path / "hub" / "models--lights--tiny-lamp" / "snapshots" / commit
    shutil.copytree(find_model(TRIAL, storage=paths.storage).model_dir, base)
    done = export(TRIAL, form="adapter", output=tmp_path / "out", storage=paths.storage, base=base)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("lights/tiny-lamp", commit)
    assert done.base == str(base)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.to_dict()["base_model"] == "lights/tiny-lamp"
    assert 'from_pretrained("lights/tiny-lamp")' in card.text


def test_merge_takes_an_adapter_and_its_base(paths: SweepPaths, expected: torch.Tensor, tmp_path: Path) -> None:
    found = find_model(TRIAL, storage=paths.storage)
    told: list[tuple[int, int]] = []
    merge(
        str(found.adapter_dir),
        base=found.model_dir,
        output=tmp_path / "out",
        storage=paths.storage,
        progress=lambda done, total: told.append((done, total)),
    )
    assert (logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")) - expected).abs().max() < 1e-5
    assert told[-1][0] == told[-1][1] > 0
    verify_manifest(tmp_path / "out")


def test_what_is_there_is_never_touched(paths: SweepPaths, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for act in (
        lambda: export(TRIAL, form="adapter", output=tmp_path / "mine", storage=paths.storage),
        lambda: export(TRIAL, form="merged", output=tmp_path / "mine", storage=paths.storage),
        lambda: merge(TRIAL, output=tmp_path / "mine", storage=paths.storage),
    ):
        with pytest.raises(ModelError, match=r"mine exists already, and nothing is overwritten"):
            act()
    assert list((tmp_path / "mine").iterdir()) == []


def test_an_export_that_breaks_leaves_nothing(
    paths: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.shutil, "copyfile", full)
    for form in ("adapter", "merged"):
        with pytest.raises(StorageError, match=r"out cannot be written: No space left on device"):
            export(TRIAL, form=form, output=tmp_path / "out", storage=paths.storage)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_anything_is_written(
    paths: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"it needs 0.0 GB, and .* has 0.0 GB left"):
        merge(TRIAL, output=tmp_path / "out", storage=paths.storage)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_version_is_not_exported(registered: SweepPaths, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    shutil.copytree(find_model("switch/1", storage=registered.storage).model_dir, merged)
    weights = merged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(HandOverError, match=r"is not what was written"):
        export(str(merged), form="merged", output=tmp_path / "out", storage=registered.storage)
    assert not (tmp_path / "out").exists()


def test_a_whole_model_has_nothing_to_merge_and_no_adapter(registered: SweepPaths, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"switch/1 is a whole model already"):
        merge("switch/1", output=tmp_path / "out", storage=registered.storage)
    with pytest.raises(ModelError, match=r"is a whole model, and its adapter is not beside it"):
        export(str(registered.merged), form="adapter", output=tmp_path / "out", storage=registered.storage)


def test_an_adapter_of_another_base_is_the_users_mistake(paths: SweepPaths, tmp_path: Path) -> None:
    adapter = find_model(TRIAL, storage=paths.storage).adapter_dir
    assert adapter is not None
    other = tmp_path / "adapter"
    shutil.copytree(adapter, other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"bias": "all"}))
    with pytest.raises(ModelError, match=r"bias=all cannot be merged"):
        merge(str(other), output=tmp_path / "out", storage=paths.storage)


def test_the_verbs_say_what_where_and_what_next(paths: SweepPaths, tmp_path: Path) -> None:
    run = CliRunner().invoke
    storage = ["--storage", str(paths.storage)]
    merged = run(app, ["merge", TRIAL, "--output", str(tmp_path / "merged"), *storage])
    assert merged.exit_code == 0, merged.output
    assert "merging: 100%" in merged.output
    assert f"{TRIAL}: merged model, " in merged.output
    assert merged.output.splitlines()[-1] == f"next:    pharos chat {tmp_path / 'merged'}"
    adapter = run(app, ["export", TRIAL, "--format", "adapter", "--output", str(tmp_path / "adapter"), *storage])
    assert adapter.exit_code == 0, adapter.output
    assert f"card:    {tmp_path / 'adapter' / 'README.md'}" in adapter.output
    assert find_model(str(tmp_path / "adapter"), storage=paths.storage).adapter_dir is not None


def test_a_card_of_files_alone_says_what_it_can(tmp_path: Path) -> None:
    facts = exporting.card_facts(
        replace(find_model(str(write_base(tmp_path / "base")), storage=tmp_path), shown="mine"),
        tracking_uri="sqlite:///none",
    )
    text = model_card(facts, form="merged", folder="out")
    assert "# mine" in text
    assert "## Metrics" not in text
    assert "see the base" in text
