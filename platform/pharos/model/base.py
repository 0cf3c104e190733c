"""Where the base model's files are: a local directory, the hub or its cache, or the built-in tiny base.

`resolve_base` answers with a directory that can be trained on, or with the one reason why it cannot. Nothing here loads
weights or torch; a pickle is refused by its name, unopened.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pharos.errors import BaseModelError
from pharos.hub import LOG_IN, HubAway, ask_hub, quiet
from pharos.model.base_files import has_whole_weights, read_config, read_json_object, stored_tensors, weight_files
from pharos.spec.model import SweepSpec

TINY = "builtin:tiny"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
SMALL_FILES = ("*.json", "*.jinja", "tokenizer.model", "*.txt", "README.md")  # the card says the licence
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def resolve_base(
    spec: SweepSpec,
    *,
    root: Path,
    cache_dir: Path,
    build: bool,
    hub_cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path | None:
    """The directory of the spec's base.

    Args:
        root: what a relative `base` is relative to.
        cache_dir: where builtin:tiny is built.
        build: whether the weights must be there. If not, a plan is enough: builtin:tiny is not built (None if it has
            not been before), and of a hub model only config and tokenizer are fetched.
        hub_cache: the hub's cache; None is its usual place.
        progress: told (steps done, steps in all) while builtin:tiny is trained.

    Raises BaseModelError if there is no such base, or none that is a causal language model in safetensors.
    """
    if spec.base.startswith("builtin:"):
        if spec.base != TINY:
            raise BaseModelError(f"base={spec.base}: there is no such built-in base. There is one: {TINY}")
        _refuse_revision(spec, "is built here")
        return _tiny_base(cache_dir, build=build, progress=progress)

    directory = root / Path(spec.base).expanduser()
    if directory.is_dir():
        _refuse_revision(spec, "is a local directory")
        check_base(spec.base, directory, trust_remote_code=spec.trust_remote_code)
        return directory
    if directory.exists():
        raise BaseModelError(
            f"base={spec.base} is a file. Name the directory that holds config.json and the weights: {directory.parent}"
        )
    if not HUB_ID.fullmatch(spec.base):
        raise BaseModelError(f"base={spec.base}: there is no directory {directory}.{_nearest(directory)}")
    if spec.trust_remote_code and not COMMIT.fullmatch(spec.revision or ""):
        raise BaseModelError(
            f"trust_remote_code=true, revision={spec.revision or 'null'}: the code of {spec.base} could change under a "
            "name. Pin it: `revision:` must be the full commit hash, 40 hexadecimal digits."
        )
    directory = _from_hub(spec, directory, build=build, hub_cache=hub_cache)
    check_base(spec.base, directory, trust_remote_code=spec.trust_remote_code, needs_weights=build)
    return directory


def check_base(name: str, directory: Path, *, trust_remote_code: bool = False, needs_weights: bool = True) -> None:
    """Raise BaseModelError unless `directory` holds a causal language model in whole safetensors files."""
    if (directory / "adapter_config.json").is_file():
        original = read_json_object(directory / "adapter_config.json").get("base_model_name_or_path")
        remedy = f"Name the base under it: {original}" if original else "Name the base that it belongs to."
        raise BaseModelError(f"base={name} is an adapter (it has an adapter_config.json), not a base model. {remedy}")
    if not (directory / "config.json").is_file():
        raise BaseModelError(f"base={name}: {directory} is no model directory: it has no config.json.")
    _check_config(name, read_config(directory), trust_remote_code=trust_remote_code)
    if has_whole_weights(directory) or (needs_weights and weight_files(directory)):
        stored_tensors(directory)
        return
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        raise BaseModelError(
            f"base={name} has pickled weights only ({pickles[0]}): a pickle can run code, so only safetensors are "
            "loaded. Convert: load it where you trust it and call model.save_pretrained(directory)."
        )
    if needs_weights:
        raise BaseModelError(
            f"base={name}: {directory} has no weights: neither model.safetensors nor model.safetensors.index.json. "
            "If a download stopped halfway, connect and run again; if the model is published as a pickle, convert it."
        )


def _check_config(name: str, config: dict[str, Any], *, trust_remote_code: bool) -> None:
    architectures = config.get("architectures") or []
    if config.get("is_encoder_decoder"):
        raise BaseModelError(
            f"base={name} is an encoder-decoder ({', '.join(architectures) or config.get('model_type')}), not a causal "
            "language model. Choose a model whose architecture ends in ForCausalLM."
        )
    if not any(architecture.endswith("ForCausalLM") for architecture in architectures):
        raise BaseModelError(
            f"base={name} is not a causal language model: config.json says architectures={architectures}. Choose a "
            "model whose architecture ends in ForCausalLM."
        )
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "unknown")
        raise BaseModelError(
            f"base={name} is quantised ({method}): an adapter cannot be merged into it without loss. Name the model in "
            "its full precision."
        )
    if trust_remote_code:
        return
    model_type = str(config.get("model_type"))
    if not _transformers_knows(model_type):
        if "auto_map" in config:
            raise BaseModelError(
                f"base={name} (model_type={model_type}) brings its own code. If you have read it and trust it, set "
                "trust_remote_code: true and pin `revision:` to a commit."
            )
        raise BaseModelError(
            f"base={name}: model_type={model_type} is not known to the installed transformers. Install a newer one."
        )


def _transformers_knows(model_type: str) -> bool:
    transformers = find_spec("transformers")  # found, not imported: that takes seconds and loads torch
    assert transformers is not None
    assert transformers.origin is not None
    if model_type.isidentifier() and (Path(transformers.origin).parent / "models" / model_type).is_dir():
        return True
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # the few whose folder differs

    return model_type in CONFIG_MAPPING_NAMES


def _tiny_base(cache_dir: Path, *, build: bool, progress: Callable[[int, int], None] | None) -> Path | None:
    from pharos.model.tiny import ensure_tiny_base, tiny_base_folder

    folder = tiny_base_folder(cache_dir)
    if folder.is_dir():
        return folder
    return ensure_tiny_base(cache_dir, progress=progress) if build else None


def _from_hub(spec: SweepSpec, directory: Path, *, build: bool, hub_cache: Path | None) -> Path:
    """The snapshot of a hub model: from the cache without asking the hub where it is whole, else downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    small = [*SMALL_FILES, *(["*.py"] if spec.trust_remote_code else [])]
    all_files = ["*.safetensors", *small]

    def snapshot(patterns: list[str], *, local: bool) -> Path:
        return Path(
            snapshot_download(
                spec.base,
                revision=spec.revision,
                cache_dir=hub_cache,
                allow_patterns=patterns,
                local_files_only=local,
            )
        )

    def cached(patterns: list[str]) -> Path | None:
        try:
            folder = snapshot(patterns, local=True)
        except LocalEntryNotFoundError:
            return None
        return folder if (folder / "config.json").is_file() else None

    try:
        whole = cached(all_files)  # as far as the cache can tell
        if whole and has_whole_weights(whole):
            return whole
        if not build and (folder := cached(small)):
            return folder
        try:
            ask_hub("model", spec.base, revision=spec.revision)
        except HubAway:
            if whole is None:
                raise
            return whole  # what it lacks is said by whoever checks it
        with quiet():
            return snapshot(all_files if build else small, local=False)
    except (HubAway, HFValidationError, OSError) as error:  # huggingface_hub's other errors are OSErrors
        raise _not_fetched(spec, directory, error) from error


def _not_fetched(spec: SweepSpec, directory: Path, error: Exception) -> BaseModelError:
    """Why the hub gave nothing, and what would help. directory: what the base would be here."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = f"base={spec.base}" + (f", revision={spec.revision}" if spec.revision else "")
    nearest = _nearest(directory)
    if isinstance(error, GatedRepoError):
        said = f"base={spec.base} is gated: accept its licence on the hub, then {LOG_IN}."
    elif isinstance(error, RevisionNotFoundError):
        said = f"{named}: the hub has no such revision of it."
    elif isinstance(error, RepositoryNotFoundError):
        said = (
            f"base={spec.base}: there is no directory {directory}, and the hub has no such model (or a private one: "
            f"{LOG_IN}).{nearest}"
        )
    elif isinstance(error, HFValidationError):
        said = f"base={spec.base} is neither a directory ({directory}) nor a hub id.{nearest}"
    elif isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        said = f"{named}: the hub refuses the token that it was sent. Use another: {LOG_IN}."
    else:
        reason = str(error) if isinstance(error, HubAway) else type(error).__name__
        said = (
            f"{named} is neither a directory ({directory}) nor whole in the hub's cache, and the hub cannot be reached "
            f"({reason}).{nearest} Name a directory, or connect and run again."
        )
    return BaseModelError(said)


def _refuse_revision(spec: SweepSpec, reason: str) -> None:
    if spec.revision is not None:
        raise BaseModelError(f"revision={spec.revision}: base={spec.base} {reason}, it has no revisions. Remove it.")


def _nearest(directory: Path) -> str:
    """' Did you mean ...?' with the nearest directory name beside the one that is not there, or nothing."""
    if not directory.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in directory.parent.iterdir() if entry.is_dir())
    near = difflib.get_close_matches(directory.name, names, n=1)
    return f" Did you mean the directory {directory.parent / near[0]}?" if near else ""
