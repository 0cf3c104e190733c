"""What a model card says, gathered: from a sweep's event log, from the registry, or from the files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pharos.handover.references import FoundModel
from pharos.model.base_files import read_config
from pharos.model.facts import directory_digest
from pharos.plan.ledger import Ledger
from pharos.plan.trial import BASELINE, trial_name
from pharos.track.mlflow_client import open_store, tracking_errors
from pharos.track.model_versions import REMEDY, find_version
from pharos.track.run_values import of_param
from pharos.track.sweeps import log_of

Value = TypeVar("Value")
SNAPSHOT = re.compile(r"models--(.+?)/snapshots/([0-9a-f]{40})")
HUB_DATA = re.compile(r"hub:([\w.-]+(?:/[\w.-]+)?)")
SECTIONS = ("lora", "optim", "train")
NOT_OF_THE_TRIAL = ("report_every", "micro_batch_size", "activation_checkpointing", "dtype", "target_modules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """As a card's header has it: id is `other` where `name` says it."""

    id: str
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """All that is known of a model; what is not is empty.

    base: as the sweep's file names it, or its directory. base_hub: its hub id and commit, where it is from there.
    base_dir: where it lies on this machine, as far as is known.
    data: what was trained on, as the file names it. digests: of data, base, spec, tokenizer. metrics: by whose they
    are (this model, baseline, untrained base), then by name.
    """

    shown: str
    base: str
    base_hub: tuple[str, str | None] | None = None
    base_dir: str = ""
    licence: Licence | None = None
    data: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    target_modules: str = ""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    trial: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def base_place(self) -> str:
        """What loads the base: its hub id, or its directory."""
        return self.base_hub[0] if self.base_hub else self.base_dir or self.base

    @property
    def datasets(self) -> tuple[str, ...]:
        """Hub ids among the data."""
        return tuple(dict.fromkeys(match[1] for source in self.data if (match := HUB_DATA.match(source))))


def card_facts(found: FoundModel, *, tracking_uri: str) -> CardFacts:
    """Of a model that was found: what its sweep's log says, or the registry, or only what its files are.

    Raises TrackingError where it is a registered version and the store does not answer.
    """
    if found.sweep_dir is not None and found.trial is not None:
        ledger = Ledger.of(log_of(found.sweep_dir).read())
        return trial_facts(ledger, found.trial, base_dir=found.model_dir, shown=found.shown)
    if found.model is not None and found.version is not None:
        return _version_facts(found, tracking_uri)
    is_over_base = found.adapter_dir is not None
    return CardFacts(
        shown=found.shown,
        base=str(found.model_dir),
        base_hub=hub_name(found.model_dir),
        base_dir=str(found.model_dir),
        licence=licence_of(found.model_dir),
        digests={"base": directory_digest(found.model_dir)} if is_over_base else {},
    )


def trial_facts(
    ledger: Ledger, number: int, *, base_dir: Path, shown: str = "", measured: Mapping[str, float] | None = None
) -> CardFacts:
    """Of a trial, by its sweep's log. measured: of this model, what the log does not hold yet."""
    started, trial = ledger.started, ledger.record(number)
    assert started is not None
    name = trial_name(started.sweep, number)
    spec = started.spec
    own = trial.plan.hyperparameters.to_json()
    steps = {"optimizer steps": trial.plan.num_steps, "kept after step": trial.best_step}
    metrics = {"this model": _metrics(ledger, number) | dict(measured or {})}
    if number != BASELINE and BASELINE in ledger.trials:
        metrics["baseline"] = _metrics(ledger, BASELINE)
    metrics["untrained base"] = dict(ledger.base_test_metrics)
    return CardFacts(
        shown=shown or name,
        base=str(spec.get("base", base_dir)),
        base_hub=hub_name(base_dir) or _hub_of_spec(spec),
        base_dir=str(base_dir),
        licence=licence_of(base_dir),
        data=_sources(spec),
        digests=dict(started.digests),
        hyperparameters={key: value for key, value in (own | steps).items() if value is not None},
        target_modules=_targets(spec),
        metrics={whose: values for whose, values in metrics.items() if values},
        trial=name,
        versions=dict(started.versions),
    )


def licence_of(directory: Path) -> Licence | None:
    """What a model's own card or configuration says; none where they are silent."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    card = directory / "README.md"
    if card.is_file():
        try:
            said = ModelCard.load(card).data.to_dict()
        except (ValueError, OSError, YAMLError):  # a header that is no YAML says nothing
            said = {}
        if isinstance(said.get("license"), str):
            return Licence(id=said["license"], name=said.get("license_name"), link=said.get("license_link"))
    configured = read_config(directory).get("license")
    return Licence(id=configured) if isinstance(configured, str) else None


def hub_name(directory: Path) -> tuple[str, str] | None:
    """(owner/name, commit) of a directory in the hub's cache."""
    match = SNAPSHOT.search(directory.as_posix())
    return (match[1].replace("--", "/"), match[2]) if match else None


def _version_facts(found: FoundModel, tracking_uri: str) -> CardFacts:
    """By the version's tags, the parameters of its trial's run, and the spec that its sweep's run keeps."""
    assert found.model is not None
    version = find_version(tracking_uri, found.model, version=found.version)
    with tracking_errors(tracking_uri, REMEDY):
        client = open_store(tracking_uri, REMEDY)
        run = client.get_run(version.run_id)
        parent = client.get_run(run.data.tags["mlflow.parentRunId"])
        spec = json.loads(Path(client.download_artifacts(parent.info.run_id, "spec.json")).read_text(encoding="utf-8"))
    tags = version.tags
    params = {key.split(".", 1)[1]: value for key, value in run.data.params.items() if key.split(".")[0] in SECTIONS}
    own = {key: of_param(value) for key, value in params.items() if key not in NOT_OF_THE_TRIAL}
    steps = {"optimizer steps": of_param(run.data.params.get("num_steps", "null"))}
    untrained = _tagged(parent.data.metrics, "base_")
    metrics = {"this model": {key: float(value) for key, value in _tagged(tags, "pharos.metric.").items()}}
    name = trial_name(tags.get("pharos.sweep", ""), int(tags.get("pharos.trial", 0)))
    return CardFacts(
        shown=found.shown,
        base=str(spec["base"]),
        base_hub=_hub_of_spec(spec),
        licence=licence_of(found.model_dir),
        data=_sources(spec),
        digests=_tagged(tags, "pharos.digest."),
        hyperparameters={key: value for key, value in (own | steps).items() if value is not None},
        target_modules=_targets(spec),
        metrics=metrics | ({"untrained base": untrained} if untrained else {}),
        trial=name,
        versions=_tagged(tags, "pharos.version."),
    )


def _metrics(ledger: Ledger, number: int) -> dict[str, float]:
    trial = ledger.record(number)
    return ({} if trial.score is None else {ledger.metric: trial.score}) | trial.test_metrics


def _tagged(tags: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    return {name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)}


def _hub_of_spec(spec: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """A base that is named with a revision is from the hub: directories and built-in bases have none."""
    return (str(spec["base"]), str(spec["revision"])) if spec.get("revision") else None


def _sources(spec: Mapping[str, Any]) -> tuple[str, ...]:
    train = (spec.get("data") or {}).get("train")
    sources = train if isinstance(train, list | tuple) else [train]
    return tuple(str(one["path"]) if isinstance(one, Mapping) else str(one) for one in sources if one)


def _targets(spec: Mapping[str, Any]) -> str:
    chosen = (spec.get("lora") or {}).get("target_modules", "")
    return chosen if isinstance(chosen, str) else ", ".join(chosen)
