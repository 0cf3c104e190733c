"""From a candidate to the model in use, and back: check, compare on test rows, move the alias.

The checks of a version are in `checks.py`, the decision is `plan/promotion.py`, and how the alias is moved safely is
`track/champion.py`. Nothing is changed before all of it is done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pharos.errors import HandOverError, ModelError, PharosError
from pharos.handover.checks import (
    chat_template,
    check_version,
    tokenizer_files,
    trusts_remote_code,
    verified_folder,
)
from pharos.plan.promotion import Comparison, Outcome, RowLosses, compare, decide
from pharos.track.champion import CHAMPION, PREVIOUS, move_champion, settle
from pharos.track.mlflow_client import open_store, tracking_errors
from pharos.track.model_versions import REMEDY, FoundVersion, find_version, local_artifacts

Progress = Callable[[str], None]

CANDIDATE = "candidate"
UNDECIDED = (
    "If that was while the alias was moved, the next `pharos promote` or `pharos rollback` finishes it or takes it "
    "back; `pharos models` says how it stands."
)


def promote(
    reference: str,
    *,
    storage: Path,
    tracking_uri: str,
    margin: float | None = None,
    force_reason: str | None = None,
    base: Path | None = None,
    progress: Progress,
) -> Outcome:
    """Make a version the champion if it passes every check and the comparison with the champion of now.

    Args:
        reference: NAME (its candidate), NAME@ALIAS or NAME/VERSION.
        storage: of the sweeps, absolute: for rows, bases, and what is fetched from a server.
        margin: how much worse, in loss a token, the candidate may be.
        force_reason: promote whatever the comparison says. The checks of the version itself hold all the same.
        base: the directory of the original base, where it has moved.

    A candidate that is not better changes nothing: the outcome says so. Raises HandOverError for a version that is not
    in order and for a race that was lost, ModelError for what is not found, TrackingError for a store that is away.
    """
    candidate = _find(reference, tracking_uri)
    client = open_store(tracking_uri, REMEDY)
    with tracking_errors(tracking_uri, UNDECIDED):
        settled = settle(client, candidate.model)
        aliases = client.get_registered_model(candidate.model).aliases
    before = str(aliases[CHAMPION]) if CHAMPION in aliases else None
    if before == candidate.version:
        reason = "it is the champion already"
        return _outcome(candidate, before, before, reason, settled)
    champion = None if before is None else find_version(tracking_uri, candidate.model, version=before)

    device = _device()
    with _place_for_files(candidate, storage) as files:
        checked = check_version(candidate, storage=storage, files=files, base=base, device=device, progress=progress)
        comparison, not_compared = None, ""
        if champion is not None:
            try:
                comparison = _compare(
                    candidate, checked.merged, checked.data_dir, champion, storage, device=device, progress=progress
                )
            except HandOverError as error:
                if force_reason is None:
                    raise
                not_compared = error.message
    verdict = decide(comparison, margin=margin)
    if not verdict.promotes and force_reason is None:
        return _outcome(candidate, before, before, verdict.reason, settled, comparison)
    why = verdict.reason if force_reason is None else f"{force_reason} ({not_compared or verdict.reason})"
    progress("moving the alias")
    with tracking_errors(tracking_uri, UNDECIDED):
        _, more = move_champion(
            client,
            candidate.model,
            kind="promote",
            to=candidate.version,
            expected=before,
            why=why,
            forced=force_reason is not None,
        )
    outcome = _outcome(candidate, before, candidate.version, why, [*settled, *more], comparison)
    return replace(outcome, forced=force_reason is not None)


def rollback(model: str, *, storage: Path, tracking_uri: str, reason: str | None, progress: Progress) -> Outcome:
    """Make `previous` the champion again, and the champion `previous`. Its files are verified first.

    Raises as `promote` does, ModelError where there is no previous champion.
    """
    if "@" in model or "/" in model:
        raise ModelError(f"{model}: a roll-back goes to the champion before this one. Give the model's name alone.")
    client = open_store(tracking_uri, REMEDY)
    registered = _aliases_of(model, tracking_uri)
    with tracking_errors(tracking_uri, UNDECIDED):
        settled = settle(client, model)
        if settled:
            registered = _aliases_of(model, tracking_uri)
    before, previous = registered.get(CHAMPION), registered.get(PREVIOUS)
    if previous is None or previous == before:
        now = f"version {before} is the first champion" if before else "it never had a champion"
        raise ModelError(
            f"{model} has no previous champion to go back to: {now}. `pharos models {model}` lists its versions, and "
            f"`pharos promote {model}/N` promotes any of them."
        )
    found = find_version(tracking_uri, model, version=previous)
    progress(f"verifying the files of {found.shown}")
    with _place_for_files(found, storage) as files:
        verified_folder(found, files)
    progress("moving the aliases")
    why = reason or "rolled back"
    with tracking_errors(tracking_uri, UNDECIDED):
        _, more = move_champion(client, model, kind="rollback", to=previous, expected=before, why=why)
    return _outcome(found, before, previous, why, [*settled, *more])


def compare_versions(
    candidate: Path,
    champion: Path,
    data_dir: Path,
    *,
    trust_remote_code: tuple[bool, bool] = (False, False),
    device: str = "cpu",
    progress: Progress = lambda text: None,
) -> Comparison:
    """Score two merged models on the test rows of `data_dir`, one model in memory at a time, and compare."""
    import torch

    from pharos.data.store import open_split
    from pharos.model.loading import load_model
    from pharos.train.row_losses import row_losses

    rows = open_split(data_dir, "test")
    losses = []
    for directory, trusts, called in zip(
        (candidate, champion), trust_remote_code, ("the candidate", "the champion"), strict=True
    ):
        progress(f"scoring {called} on {len(rows)} test rows")
        model = load_model(directory, dtype=torch.float32, device=device, trust_remote_code=trusts)
        found = row_losses(model, rows)
        del model  # before the next one is loaded
        counted = found.num_tokens > 0
        losses.append(RowLosses(sums=found.loss_sums[counted], counts=found.num_tokens[counted]))
    try:
        return compare(losses[0], losses[1])
    except ValueError as error:
        raise HandOverError(f"The two models cannot be compared on the test rows of {data_dir}: {error}.") from error


def _compare(
    candidate: FoundVersion,
    merged: Path,
    data_dir: Path,
    champion: FoundVersion,
    storage: Path,
    *,
    device: str,
    progress: Progress,
) -> Comparison:
    """Raises HandOverError where the champion's files are not in order, or where the losses would not be comparable."""
    remedy = "To promote it all the same: --force --reason TEXT."
    try:
        in_use = verified_folder(champion, storage / "cache")
    except PharosError as error:
        raise HandOverError(f"The champion {champion.shown} is not in order: {error.message} {remedy}") from error
    if tokenizer_files(merged) != tokenizer_files(in_use):
        raise HandOverError(
            f"{candidate.shown} and the champion {champion.shown} have different tokenizers, so their losses a token "
            f"do not compare. Compare what they answer with `pharos eval`. {remedy}"
        )
    if chat_template(merged) != chat_template(in_use):
        raise HandOverError(
            f"{candidate.shown} and the champion {champion.shown} were trained with different chat templates: on the "
            f"rows of one the other would read turns that it never saw. Compare what they answer with `pharos eval`. "
            f"{remedy}"
        )
    trusts = (trusts_remote_code(candidate), trusts_remote_code(champion))
    return compare_versions(merged, in_use, data_dir, trust_remote_code=trusts, device=device, progress=progress)


def _find(reference: str, tracking_uri: str) -> FoundVersion:
    """The version that NAME, NAME@ALIAS or NAME/VERSION names."""
    written = reference.removeprefix("models:/")
    if "@" in written:
        model, _, alias = written.partition("@")
        return find_version(tracking_uri, model, alias=alias)
    if "/" in written:
        model, _, version = written.rpartition("/")
        return find_version(tracking_uri, model, version=version)
    return find_version(tracking_uri, written, alias=CANDIDATE)


def _aliases_of(model: str, tracking_uri: str) -> dict[str, str]:
    from pharos.track.model_list import list_models

    [listed] = list_models(tracking_uri, model)
    return {alias: version.version for version in listed.versions for alias in version.aliases}


@contextmanager
def _place_for_files(found: FoundVersion, storage: Path) -> Iterator[Path]:
    """Where a version's files are fetched to. From a server anew each time: what it keeps now is what is checked."""
    cache = storage / "cache"
    if local_artifacts(found.artifacts) is not None:
        yield cache
        return
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="checked.", dir=cache) as files:
        yield Path(files)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _outcome(
    found: FoundVersion,
    before: str | None,
    champion: str | None,
    reason: str,
    settled: list[str],
    comparison: Comparison | None = None,
) -> Outcome:
    return Outcome(
        model=found.model,
        version=found.version,
        before=before,
        champion=champion,
        reason=reason,
        comparison=comparison,
        settled=tuple(settled),
    )
