"""The edge of a sweep: where the facts are gathered and base and data are made ready, before anything starts.

Loads neither torch nor Ray, so that `pharos plan` can use it; building builtin:tiny is the one exception, and only
`stage` does that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pharos.data.facts import data_facts
from pharos.data.prepare import PreparedData, prepare
from pharos.errors import BaseModelError, StorageError
from pharos.folders import ensure_folder, user_cache
from pharos.model.base import TINY, resolve_base
from pharos.model.facts import base_facts
from pharos.model.tiny_tokenizer import ensure_tiny_tokenizer
from pharos.plan.facts import BaseFacts, MachineFacts
from pharos.plan.sweep_plan import SweepPlan, plan_sweep
from pharos.spec.identity import spec_digest
from pharos.spec.model import SweepSpec
from pharos.store.mirror import fetch_folder, local_storage, mirrored
from pharos.store.uris import checked_storage, is_store
from pharos.sweep.paths import check_writable
from pharos.sweep.sharing import linked_base

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A sweep whose base and data are on disk and whose plan is exact. All paths are absolute.

    root: the directory of the spec's file. storage: of an object store its mirror here. shared_base: where the base
    lies in such a mirror, and so at the store, if that is not base_dir itself.
    """

    spec: SweepSpec
    root: Path
    storage: Path
    base_dir: Path
    data: PreparedData
    plan: SweepPlan
    shared_base: Path | None = None

    def digests(self) -> dict[str, str]:
        """What this sweep is made of, for the event log and the lineage of its model."""
        return {
            "spec": spec_digest(self.spec),
            "data": self.data.digest,
            "base": self.plan.base.digest,
            "tokenizer": self.plan.base.tokenizer_digest,
        }


def outlook(spec: SweepSpec, *, root: Path) -> SweepPlan:
    """The plan, from what can be known without building or preparing anything. root: directory of the spec file."""
    refuse_untracked(spec)
    base_dir, tokenizer_dir = _base_and_tokenizer(spec, root=root)
    base = _base_facts(spec, base_dir, tokenizer_dir)
    data = data_facts(
        spec.data,
        root=root,
        tokenizer_dir=tokenizer_dir,
        tokenizer_digest=base.tokenizer_digest,
        cache_dir=prepared_cache(spec),
    )
    return plan_sweep(spec, base, data, machine_facts())


def tokenizer_directory(spec: SweepSpec, *, root: Path) -> Path:
    """Where the tokenizer of the spec's base lies; nothing is built, and no weights are fetched."""
    return _base_and_tokenizer(spec, root=root)[1]


def stage(spec: SweepSpec, *, root: Path, progress: Progress) -> Staged:
    """Make base and data ready, below the storage where workers elsewhere must read them, and plan exactly.

    Raises what reading the base and the data raises, and StorageError where the storage cannot be written.
    """
    refuse_untracked(spec)
    storage = local_storage(spec.storage)
    check_writable(storage)
    is_remote = mirrored(storage) is not None

    def building(done: int, total: int) -> None:
        progress(f"building {spec.base}, once: step {done} of {total}")

    base_dir = _fetched_tiny(storage / "cache") if is_remote and spec.base == TINY else None
    if base_dir is None:
        if spec.base != TINY and not (root / Path(spec.base).expanduser()).is_dir():
            progress(f"fetching {spec.base} from the hub, as far as it is not in the cache")
        base_dir = resolve_base(spec, root=root, cache_dir=user_cache(), build=True, progress=building)
    if base_dir is None:
        raise BaseModelError(f"base={spec.base} could not be built below {user_cache()}.")
    if spec.base == TINY:
        base_dir = _beside_the_storage(base_dir, storage / "cache")
    shared_base = None
    if is_remote and mirrored(base_dir.absolute()) is None:
        progress(f"reading {spec.base}, for its name at the store")
        shared_base = linked_base(base_dir.absolute(), storage / "cache")
    base = _base_facts(spec, base_dir.absolute(), base_dir)
    progress("preparing the data")
    data = prepare(
        spec.data,
        root=root,
        tokenizer_dir=base_dir,
        tokenizer_digest=base.tokenizer_digest,
        cache_dir=prepared_cache(spec),
    )
    plan = plan_sweep(spec, base, data.facts, machine_facts())
    return Staged(
        spec=spec,
        root=root.absolute(),
        storage=storage,
        base_dir=base_dir.absolute(),
        data=data,
        plan=plan,
        shared_base=shared_base,
    )


def refuse_untracked(spec: SweepSpec) -> None:
    """Raise StorageError where MLflow's SQLite would have to lie at an object store, and for what is no storage."""
    storage = checked_storage(spec.storage)
    if is_store(storage) and spec.tracking.uri is None:
        raise StorageError(
            f"storage={storage} is an object store, which cannot hold MLflow's SQLite file, and no other place is "
            "given. Set tracking.uri (--tracking-uri) to a server, http://HOST:5000, or to sqlite:///PATH on the "
            "machine that you start sweeps from."
        )


def _base_and_tokenizer(spec: SweepSpec, *, root: Path) -> tuple[Path | None, Path]:
    """The base's directory, none for builtin:tiny before it is built, and its tokenizer's."""
    base_dir = resolve_base(spec, root=root, cache_dir=user_cache(), build=False)
    return base_dir, base_dir or ensure_tiny_tokenizer(user_cache())


def _base_facts(spec: SweepSpec, base_dir: Path | None, tokenizer_dir: Path) -> BaseFacts:
    targets = spec.lora.target_modules
    return base_facts(spec.base, base_dir, target_modules=targets, tokenizer_directory=tokenizer_dir)


def _beside_the_storage(built: Path, cache: Path) -> Path:
    """A copy of a built-in base below the storage, which every worker reads; the user's cache is this machine's."""
    copy = cache / built.name
    return ensure_folder(copy, lambda unfinished: shutil.copytree(built, unfinished, dirs_exist_ok=True))


def _fetched_tiny(cache: Path) -> Path | None:
    """The built-in base as a sweep of this storage has built it already, on whatever machine."""
    from pharos.model.tiny import tiny_base_folder

    folder = tiny_base_folder(cache)
    return folder if fetch_folder(folder) else None


def prepared_cache(spec: SweepSpec) -> Path:
    """Where prepared data lie: below the storage, since every worker reads them."""
    return local_storage(spec.storage) / "cache"


def machine_facts() -> MachineFacts:
    """This machine, as the operating system and the NVIDIA driver describe it."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    num_gpus, gpu_memory_bytes = _gpus()
    return MachineFacts(
        num_cpus=os.cpu_count() or 1,
        memory_bytes=pages * page_bytes,
        num_gpus=num_gpus,
        gpu_memory_bytes=gpu_memory_bytes,
    )


def _gpus() -> tuple[int, int]:
    """Number of GPUs and the memory of the smallest, bytes; asked of nvidia-smi, which needs no torch."""
    if shutil.which("nvidia-smi") is None:
        return 0, 0
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    mebibytes = [int(line) for line in answer.stdout.split() if line.isdigit()]
    return len(mebibytes), min(mebibytes, default=0) * 2**20
