"""What a person calls a model, and where its files are.

A reference is read in this order:

1. `models:/NAME@ALIAS` or `models:/NAME/3`, as MLflow writes it: always the registry.
2. A directory that is there: a merged model or a base, or an adapter with its base. `./NAME/3` is always this.
3. `NAME@ALIAS`, or `NAME/3` with no other slash: a version in the registry.
4. `SWEEP-0007`, or the path of a sweep's directory and `-0007`: the adapter that a trial has kept, over its base; a
   repeat under a further seed is `SWEEP-0007-seed2`.
5. `builtin:tiny`: the built-in base, as a sweep has built it in this storage.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pharos.errors import BaseModelError, ModelError
from pharos.model.base import TINY, check_base
from pharos.model.base_files import read_json_object
from pharos.model.facts import directory_digest
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.trial import Repeat, trial_name
from pharos.store.mirror import (
    fetch_checkpoint,
    fetch_folder,
    fetch_segments,
    fetched_file,
    folders_of,
    mirrored,
    typed_storage,
)
from pharos.track.mlflow_client import registry_of
from pharos.track.model_versions import FoundVersion, find_version, version_folder
from pharos.track.sweeps import log_of, sweeps_in

REGISTRY_URI = "models:/"
ALIAS = re.compile(r"([^@/]+)@([^@/]+)")
VERSION = re.compile(r"([^@/]+)/(\d+)")
TRIAL = re.compile(r"(.+?)-(\d{4,})(?:-seed(\d+))?")
CHAT_TEMPLATE = "chat_template.jinja"
FORMS = "NAME@ALIAS, NAME/3, SWEEP-0007, a directory of a model, or one of an adapter with --base"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A model on this machine. shown: what to call it. model_dir: a plain model directory, merged or the base.

    adapter_dir: what lies on top of it, none for a merged model. chat_template: the file of the template that it was
    trained with, where that is not the one in model_dir. model, version, run_id: where it comes from the registry;
    sweep_dir, sweep, trial: where it is a trial of a sweep. trust_remote_code: as that sweep's file says.
    """

    shown: str
    model_dir: Path
    adapter_dir: Path | None = None
    chat_template: Path | None = None
    model: str | None = None
    version: str | None = None
    run_id: str | None = None
    sweep_dir: Path | None = None
    sweep: str | None = None
    trial: int | None = None
    trust_remote_code: bool = False


def find_model(
    reference: str,
    *,
    storage: Path,
    tracking_uri: str | None = None,
    base: Path | None = None,
    needs_adapter: bool = True,
) -> FoundModel:
    """The model that a person names.

    Args:
        storage: of the sweeps: where trials are looked for, the registry's default place, and where files of a server
            are kept.
        tracking_uri: of the registry, none: the SQLite store in the storage.
        base: of an adapter, or of a trial whose base has moved.
        needs_adapter: of a trial; if not, one whose adapter was deleted is found too, without it.

    Raises ModelError, with the nearest name and what there is, where nothing is found or its base is not the one that
    it was trained on; BaseModelError for a directory that holds no whole model; TrackingError for a store that is away.
    """
    storage = storage.absolute()
    written = reference.removeprefix(REGISTRY_URI)
    directory = Path(reference).expanduser()
    if written == reference and directory.is_dir():
        return _in_directory(reference, directory.absolute(), base)
    aliased, numbered = ALIAS.fullmatch(written), VERSION.fullmatch(written)
    if aliased or numbered:
        uri = tracking_uri or registry_of(storage)
        found = find_version(
            uri,
            (aliased or numbered)[1],  # type: ignore[index]
            alias=aliased[2] if aliased else None,
            version=numbered[2] if numbered else None,
        )
        return _of_version(found, storage, base)
    if written != reference:
        raise ModelError(f"{reference} names no registered version: write models:/NAME@ALIAS or models:/NAME/3.")
    if reference == TINY:
        return FoundModel(shown=TINY, model_dir=_tiny_base(storage))
    if trial := TRIAL.fullmatch(reference):
        sweep_dir = sweep_directory(trial[1], storage)
        if sweep_dir is not None:
            number = int(trial[2])
            if trial[3] is not None:
                number = Repeat(of=number, seed=int(trial[3])).number
            return _of_trial(sweep_dir, number, storage, base, needs_adapter=needs_adapter)
    raise ModelError(f"{reference}: no such model. Write {FORMS}.{_nearest(reference, storage)}")


def sweep_directory(name: str, storage: Path) -> Path | None:
    """Where a sweep lies: below the storage, or at the path that was written."""
    for directory in (storage / name, Path(name).expanduser().absolute()):
        fetch_segments(directory / "events")
        if (directory / "events").is_dir():
            return directory
    return None


def base_of_sweep(sweep_dir: Path, storage: Path) -> Path | None:
    """Where the base of a sweep's trials lies, or its merged model, whose tokenizer is the same; none if neither is."""
    configs = sorted((sweep_dir / "trials").glob("*/*/adapter_config.json"))
    for config in configs or _fetched_configs(sweep_dir):
        for place in _places(config.parent, [sweep_dir.parent, storage]):
            if fetch_folder(place) and (place / "config.json").is_file():
                return place
    merged = sweep_dir / "merged"
    return merged if (merged / "config.json").is_file() else None


def _fetched_configs(sweep_dir: Path) -> Iterator[Path]:
    """The same of a sweep at an object store, of which no adapter has been fetched yet."""
    for trial in _ledger(sweep_dir).records() if mirrored(sweep_dir) else ():
        written = Path(trial.best_checkpoint or "")
        directory = sweep_dir / "trials" / written.parent.name / written.name
        if trial.best_checkpoint is not None and fetch_checkpoint(directory):
            yield directory / "adapter_config.json"


def _in_directory(reference: str, directory: Path, base: Path | None) -> FoundModel:
    """A directory's model: plain, or an adapter over `base` or the one that its configuration names."""
    shown = directory.name if reference in (".", "..") else reference.rstrip("/")
    if (directory / "events").is_dir() and not (directory / "config.json").is_file():
        ledger = _ledger(directory)
        best = ledger.best()
        name = trial_name(str(directory), best.number if best else 0)
        raise ModelError(f"{reference} is a sweep, not a model. Name one of its trials, as {name}.")
    if not (directory / "adapter_config.json").is_file():
        if base is not None:
            raise ModelError(f"--base {base}: {reference} is no adapter, it needs no base. Leave --base out.")
        _check(reference, directory)
        return FoundModel(shown=shown, model_dir=directory)
    named = read_json_object(directory / "adapter_config.json").get("base_model_name_or_path")
    if base is None and not (isinstance(named, str) and Path(named).is_dir()):
        reason = f"its configuration names {named}, which is no directory" if named else "its configuration names none"
        raise ModelError(f"{reference} is an adapter, and where its base lies is not known: {reason}. Give --base.")
    model_dir = (base or Path(str(named))).absolute()
    _check(str(model_dir), model_dir)
    template: Path | None = directory / CHAT_TEMPLATE
    sweep_dir = directory.parents[2] if len(directory.parents) > 2 else directory  # of <sweep>/trials/0007/step-000050
    if (sweep_dir / "events").is_dir():
        template = _template_of(sweep_dir, _ledger(sweep_dir))
    return FoundModel(
        shown=shown,
        model_dir=model_dir,
        adapter_dir=directory,
        chat_template=template if template is not None and template.is_file() else None,
    )


def _of_version(found: FoundVersion, storage: Path, base: Path | None) -> FoundModel:
    if base is not None:
        raise ModelError(f"--base {base}: {found.shown} is a merged model, it needs no base. Leave --base out.")
    folder = version_folder(found, cache=storage / "cache")
    _check(found.shown, folder)
    return FoundModel(
        shown=found.shown, model_dir=folder, model=found.model, version=found.version, run_id=found.run_id
    )


def _of_trial(sweep_dir: Path, number: int, storage: Path, base: Path | None, *, needs_adapter: bool) -> FoundModel:
    ledger = _ledger(sweep_dir)
    sweep = ledger.started.sweep if ledger.started else sweep_dir.name
    shown = trial_name(sweep, number)
    trial = (ledger.trials | ledger.repeats).get(number)
    if trial is None:
        numbers = sorted(ledger.trials)
        there = f"{trial_name(sweep, numbers[0])} to {trial_name(sweep, numbers[-1])}" if numbers else "no trial yet"
        raise ModelError(f"{shown}: {sweep} has no such trial. There is {there}.")
    if trial.removed and not needs_adapter:
        adapter_dir = None
        known = base_of_sweep(sweep_dir, storage)
        places = [known or sweep_dir.parent / "cache"]
    else:
        adapter_dir = _kept_adapter(sweep_dir, trial, shown)
        places = _places(adapter_dir, [sweep_dir.parent, storage])
    digests = ledger.started.digests if ledger.started else {}
    trusts = bool(ledger.started and ledger.started.spec.get("trust_remote_code"))
    if base is not None:
        places = [base.absolute()]
    template = _template_of(sweep_dir, ledger)
    return FoundModel(
        shown=shown,
        model_dir=_base_of_trial(shown, places, digests.get("base"), trust_remote_code=trusts),
        adapter_dir=adapter_dir,
        chat_template=template,
        sweep_dir=sweep_dir,
        sweep=sweep,
        trial=number,
        trust_remote_code=trusts,
    )


def _template_of(sweep_dir: Path, ledger: Ledger) -> Path | None:
    """The file of the template that a sweep's rows were written with, none where it is the base's own."""
    digest = ledger.started.digests.get("data", "") if ledger.started else ""
    template = fetched_file(sweep_dir.parent / "cache" / digest / CHAT_TEMPLATE)
    return template if template.is_file() else None


def _kept_adapter(sweep_dir: Path, trial: TrialRecord, shown: str) -> Path:
    """The checkpoint of the trial's best evaluation; below the sweep's directory, wherever that has been moved to."""
    if trial.removed:
        raise ModelError(
            f"{shown}: its adapter was deleted, since others were better (keep.adapters). Its curve is kept, and "
            "`pharos rerun` trains it again to compare. To have the adapter, train with its hyperparameters: "
            "`pharos train SPEC --set KEY=VALUE`."
        )
    if trial.best_checkpoint is None:
        raise ModelError(f"{shown} is {trial.state} and has kept no adapter yet: none of its evaluations is done.")
    written = Path(trial.best_checkpoint)
    moved = sweep_dir / "trials" / written.parent.name / written.name
    fetch_checkpoint(moved)
    for directory in (moved, written):
        if (directory / "adapter_config.json").is_file():
            return directory
    raise ModelError(f"{shown}: its adapter should be in {moved}, which is not there. Put it back, or run it again.")


def _places(adapter_dir: Path, storages: list[Path]) -> list[Path]:
    """Where the base of a trial may lie: where its adapter says, or below a storage that has moved with the sweep."""
    named = read_json_object(adapter_dir / "adapter_config.json").get("base_model_name_or_path")
    written = Path(str(named))
    return list(dict.fromkeys([written, *(storage / "cache" / written.name for storage in storages)]))


def _base_of_trial(shown: str, places: list[Path], digest: str | None, *, trust_remote_code: bool) -> Path:
    """The first of some directories that holds the base with this digest: the one that the trial was trained on."""
    there = [place for place in places if fetch_folder(place) and (place / "config.json").is_file()]
    if not there:
        raise ModelError(
            f"{shown}: its base should be in {places[0]}, which holds no model. Give the directory that it is in now: "
            "--base."
        )
    for place in there:
        _check(str(place), place, trust_remote_code=trust_remote_code)
        if digest in (None, directory_digest(place)):
            return place
    raise ModelError(
        f"{shown} was trained on a base with digest {digest}, and {there[0]} holds another one, "
        f"{directory_digest(there[0])}. Put the base back, or give its directory: --base."
    )


def _check(name: str, directory: Path, *, trust_remote_code: bool = False) -> None:
    """Raise BaseModelError unless a directory holds a whole model that can be loaded."""
    try:
        check_base(name, directory, trust_remote_code=trust_remote_code)
    except BaseModelError as error:
        raise BaseModelError(error.message.removeprefix("base=")) from error


def _ledger(sweep_dir: Path) -> Ledger:
    return Ledger.of(log_of(sweep_dir).read())


def _tiny_base(storage: Path) -> Path:
    for name in folders_of(storage / "cache"):
        if name.startswith("tiny-"):
            fetch_folder(storage / "cache" / name)
    built = sorted((storage / "cache").glob("tiny-*/config.json"))
    if not built:
        raise ModelError(
            f"{TINY} has not been built in {typed_storage(storage)} yet: a sweep over it does so. Name its --storage."
        )
    return built[-1].parent


def _nearest(reference: str, storage: Path) -> str:
    """What there is that is called nearly so."""
    sweeps, place = sweeps_in(storage), typed_storage(storage)
    trial = TRIAL.fullmatch(reference)
    name, ending = (trial[1], f"-{trial[2]}") if trial else (reference, "")
    if not trial and reference in sweeps:
        return f" {reference} is a sweep of {place}: name one of its trials, as {trial_name(reference, 0)}."
    near = difflib.get_close_matches(Path(name).name, sweeps, n=1)
    if near:
        return f" Did you mean {near[0]}{ending or '-0000'}?"
    there = f"Sweeps in {place}: {', '.join(sweeps[:10])}." if sweeps else f"{place} holds no sweep (--storage)."
    return f" {there}"
