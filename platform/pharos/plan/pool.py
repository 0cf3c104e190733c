"""What a pool is told when it starts. Pure values; everything a worker needs and nothing that it may decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """Answers to the first eval rows, where they make the metric. stop_ids: tokens that end an answer."""

    max_rows: int
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    pad_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """One pool of one sweep.

    base_dir, data_dir, trials_dir: absolute paths that every worker sees; or URIs of an object store, of which a worker
    has the first two fetched to its node.
    r_max: the largest rank that any trial of the sweep may have; the bank is that wide.
    target_modules: as in PEFT: all-linear (every Linear but the output layer), or name suffixes.
    metric_scope: whether a trial's best or its last evaluation scores it, and so which adapter is kept.
    rungs: clocks of a trial at which it is compared. generation: at these and at its end, none where nothing is asked.
    """

    pool: str
    base_key: str
    base_dir: str
    data_dir: str
    trials_dir: str
    workers: int
    seats_per_worker: int
    placement: Literal["local", "data_parallel"]
    sharding: Literal["zero3", "replicate"]
    target_modules: Literal["all-linear"] | tuple[str, ...]
    r_max: int
    micro_batch_size: int
    report_every: int
    metric: str
    metric_scope: Literal["best", "last"]
    dtype: Literal["float32", "bfloat16"]
    activation_checkpointing: bool
    trust_remote_code: bool
    rungs: tuple[int, ...] = ()
    generation: GenerationSettings | None = None

    @property
    def num_seats(self) -> int:
        """Seats of the whole pool: local trials live on one rank, a data-parallel trial on all of them."""
        return self.seats_per_worker * (self.workers if self.placement == "local" else 1)

    @property
    def num_shards(self) -> int:
        """Over how many ranks one trial's batch is split."""
        return self.workers if self.placement == "data_parallel" else 1
