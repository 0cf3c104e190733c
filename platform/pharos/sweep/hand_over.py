"""The hand-over: merge the winner, check the merge, generate answers to test rows, register. In this order.

Nothing is registered that failed a check. Each outcome is yielded as an event for the desk to write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pharos.data.prepare import open_prompts, open_split, own_chat_template
from pharos.errors import StorageError
from pharos.handover.card import model_card
from pharos.handover.card_facts import trial_facts
from pharos.model.generate import exact_match
from pharos.model.merge import add_card, merge_adapter
from pharos.model.parity import Parity, check_parity
from pharos.plan import events as ev
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.metrics import GENERATED
from pharos.plan.paths import SweepPaths
from pharos.plan.trial import BASELINE, trial_name
from pharos.spec.identity import spec_to_json
from pharos.store.mirror import fetch_checkpoint, push_folder, typed_storage
from pharos.sweep.names import UNTRAINED
from pharos.sweep.staging import Staged
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.registry import Lineage, register_version
from pharos.track.run_values import without_password
from pharos.track.versions import ENVIRONMENT, code_version, environment_lock, library_versions

NUM_PARITY_ROWS = 16
GENERATION_BATCH = 64
"""Prompts answered at a time."""

Progress = Callable[[str], None]


def hand_over(
    staged: Staged, paths: SweepPaths, ledger: Ledger, runs: MlflowRuns, *, progress: Progress
) -> Iterator[ev.Event]:
    """Take the sweep's best trial to the registry. `runs` is attached and has the winner's run.

    Yields TestScored for exact match, where the spec asks for it, then ModelRegistered, unless the spec turns it off.
    Raises HandOverError when the merged model is not base + adapter.
    """
    winner = ledger.best()
    if winner is not None and winner.removed:
        raise StorageError(
            f"keep.adapters: the adapter of {trial_name(staged.spec.name, winner.number)}, which wins now, was deleted "
            "when it did not. Search again under another name, with a larger keep.adapters."
        )
    if winner is None or winner.best_checkpoint is None:
        return
    adapter = kept_adapter(paths, winner.best_checkpoint)
    progress(f"merging {trial_name(staged.spec.name, winner.number)} into its base")
    template = own_chat_template(staged.data.directory)
    merge_adapter(staged.base_dir, adapter, paths.merged, chat_template=template)
    progress("comparing the merged model with base + adapter")
    parity = _check(staged, adapter, paths.merged)
    measured = {"parity": parity.max_abs_difference, ledger.metric: winner.score or 0.0, **winner.test_metrics}
    if staged.spec.test.generate or ledger.metric in GENERATED:
        for scored in _exact_matches(staged, paths, ledger, winner, progress):
            measured |= scored.metrics if scored.number == winner.number else {}
            yield scored
    if staged.spec.register_.enabled:
        progress("registering")
        facts = trial_facts(ledger, winner.number, base_dir=staged.base_dir, measured=measured)
        add_card(paths.merged, model_card(facts, form="merged", folder=paths.merged.name))
    push_folder(paths.merged, anew=True)
    if staged.spec.register_.enabled:
        yield _register(staged, paths, winner, adapter, measured, runs)


def kept_adapter(paths: SweepPaths, checkpoint: str) -> Path:
    """A checkpoint as the log names it, as a local directory. Raises StorageError where it is gone."""
    written = Path(checkpoint)
    directory = paths.trials / written.parent.name / written.name
    if fetch_checkpoint(directory):
        return directory
    if written.is_dir():
        return written
    raise StorageError(f"{checkpoint}: this adapter is gone. Put it back, and run the same command again.")


def _check(staged: Staged, adapter: Path, merged: Path) -> Parity:
    rows = open_split(staged.data.directory, "eval")
    held_out = [rows.row(index)[0].tolist() for index in range(min(NUM_PARITY_ROWS, len(rows)))]
    return check_parity(staged.base_dir, adapter, merged, held_out, trust_remote_code=staged.spec.trust_remote_code)


def _exact_matches(
    staged: Staged, paths: SweepPaths, ledger: Ledger, winner: TrialRecord, progress: Progress
) -> Iterator[ev.TestScored]:
    """Generated answers to the test rows: by the merged winner, the baseline and the base as it is."""
    prompts, references = open_prompts(staged.data.directory)
    models: dict[int, tuple[Path, Path | None]] = {UNTRAINED: (staged.base_dir, None)}
    baseline = ledger.trials.get(BASELINE)
    if baseline is not None and baseline.best_checkpoint is not None:
        models[BASELINE] = (staged.base_dir, kept_adapter(paths, baseline.best_checkpoint))
    models[winner.number] = (paths.merged, None)
    for number, (model_dir, adapter_dir) in models.items():
        progress(f"answering {len(prompts)} test rows with {_called(staged, number)}")
        match = exact_match(
            model_dir,
            [prompt.tolist() for prompt in prompts],
            references,
            max_new_tokens=staged.spec.test.max_new_tokens,
            adapter_dir=adapter_dir,
            batch_size=GENERATION_BATCH,
            trust_remote_code=staged.spec.trust_remote_code,
        )
        yield ev.TestScored(number=number, metrics={"test_exact_match": match.score})


def _register(
    staged: Staged,
    paths: SweepPaths,
    winner: TrialRecord,
    adapter: Path,
    measured: dict[str, float],
    runs: MlflowRuns,
) -> ev.ModelRegistered:
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    lineage = Lineage(
        sweep=staged.spec.name,
        trial=winner.number,
        digests=staged.digests() | {"adapter": hashlib.sha256(weights).hexdigest()},
        metrics=measured,
        versions=library_versions(),
        origin=_origin(staged),
        files={
            "spec.json": json.dumps(without_password(spec_to_json(staged.spec)), indent=2),
            ENVIRONMENT: environment_lock(),
        },
    )
    model = staged.spec.register_.model or staged.spec.name
    version = register_version(runs, model=model, merged=paths.merged, adapter=adapter, lineage=lineage)
    return ev.ModelRegistered(
        number=winner.number,
        model=version.model,
        version=version.version,
        alias=version.alias,
        source=version.source if version.path is None else str(version.path),
    )


def _origin(staged: Staged) -> dict[str, str]:
    """Names behind the digests: what to look for, and where it was."""
    return {
        "base": staged.spec.base,
        **({} if staged.spec.revision is None else {"revision": staged.spec.revision}),
        **({"trust_remote_code": "true"} if staged.spec.trust_remote_code else {}),
        "base_directory": str(staged.base_dir),
        "storage": typed_storage(staged.storage),
        "code": code_version(),
    }


def _called(staged: Staged, number: int) -> str:
    return "the untrained base" if number == UNTRAINED else trial_name(staged.spec.name, number)
