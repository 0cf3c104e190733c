"""A storage with a small base, prepared rows and a registry; its versions are real merges of adapters made here."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.small_sweep import spec_fields, write_base, write_rows
from tests.unit.track import sweeps

from pharos.plan.paths import tracking_uri_of
from pharos.spec.model import SweepSpec
from pharos.track.mlflow_client import connect
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.registry import Lineage, register_version

MODEL = "switch"


@dataclass(slots=True, kw_only=True)
class Registry:
    """Versions of one model in one storage. data: the prepared rows of its sweep."""

    storage: Path
    base: Path
    data: Path
    uri: str
    runs: MlflowRuns
    num_trials: int = 0
    folders: dict[str, Path] = field(default_factory=dict)
    """Of the merged model of each version, where this machine holds it."""

    def add(self, adapter: Path) -> str:
        """Merge an adapter into the base, register it as one more version, and return its number."""
        from pharos.model.merge import merge_adapter

        number, self.num_trials = self.num_trials, self.num_trials + 1
        self.runs.write([sweeps.created(number)])
        merged = self.storage / "made" / f"merged-{number}"
        merge_adapter(self.base, adapter, merged)
        lineage = Lineage(
            sweep=sweeps.SWEEP,
            trial=number,
            digests={"spec": "5bec", "data": self.data.name},
            metrics={"eval_loss": 2.5, "test_loss": 2.75},
            versions={"python": "3.11.7", "torch": "2.13.0"},
            origin={"base": "base", "base_directory": str(self.base), "storage": str(self.storage), "code": "git 50da"},
            files={"environment.txt": "torch==2.13.0\n"},
        )
        registered = register_version(self.runs, model=MODEL, merged=merged, adapter=adapter, lineage=lineage)
        if registered.path is not None:
            self.folders[registered.version] = registered.path
        return registered.version

    def aliases(self) -> dict[str, str]:
        found = self.runs.client.get_registered_model(MODEL).aliases
        return {alias: str(version) for alias, version in found.items()}

    def champions(self) -> dict[str, str]:
        return {alias: version for alias, version in self.aliases().items() if alias in ("champion", "previous")}

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.runs.client.get_model_version(MODEL, version).tags)


def registry(storage: Path, *, base: Path, data: Path, empty_store: Path, server: str | None = None) -> Registry:
    """An empty registry over a copy of prepared rows; `base` is used where it lies. server: its URI, none: SQLite."""
    (storage / "cache").mkdir(parents=True)
    shutil.copytree(data, storage / "cache" / data.name)
    shutil.copy(empty_store, storage / "mlflow.db")
    uri = server or tracking_uri_of(storage)
    runs = MlflowRuns(uri, "pharos", artifact_root=storage / "mlartifacts")
    runs.attach(sweeps.SWEEP, sweeps.START_S)
    runs.write([sweeps.started()])
    return Registry(storage=storage, base=base, data=data, uri=uri, runs=runs)


def prepared(root: Path) -> tuple[Path, Path]:
    """A base and the prepared rows of the small sweep, made below `root`."""
    from pharos.data.prepare import prepare
    from pharos.model.facts import tokenizer_digest

    base = write_base(root / "base")
    write_rows(root / "rows.jsonl")
    spec = SweepSpec.model_validate(spec_fields())
    made = prepare(
        spec.data, root=root, tokenizer_dir=base, tokenizer_digest=tokenizer_digest(base), cache_dir=root / "cache"
    )
    return base, made.directory


def trained_adapter(base: Path, data: Path, directory: Path, *, num_steps: int) -> Path:
    """An adapter that stock PEFT has trained for some steps on the training rows; 0 steps leave the base as it is."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from pharos.data.store import open_split

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    rows = open_split(data, "train")
    for step in range(num_steps):
        tokens, trained = rows.row(step % len(rows))
        ids = torch.tensor(tokens[None].astype("int64"))
        labels = ids.where(torch.tensor(trained[None].copy()), -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(directory)
    return directory


def rewrite_manifest(merged: Path) -> None:
    """Make the manifest agree with files that were changed, as who plants a change would."""
    file = merged / "pharos_manifest.json"
    manifest = json.loads(file.read_text())
    for name in manifest["files"]:
        content = (merged / name).read_bytes()
        manifest["files"][name] = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    file.write_text(json.dumps(manifest))


def new_store(path: Path) -> Path:
    """An empty MLflow store in SQLite, to be copied: making one takes seconds."""
    connect(f"sqlite:///{path}").search_experiments()
    return path
