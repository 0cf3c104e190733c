"""Facts about base, data and machine, gathered once at the edge and handed to the plan as values. Pure.

`estimated` marks numbers that were reckoned from a sample or a formula instead of read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetModule:
    """A Linear module that carries an adapter: y (.., d_out) = W (d_out, d_in) x (.., d_in)."""

    name: str
    d_in: int
    d_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """A base model as its files describe it, weights not loaded.

    directory: where its files lie, none while builtin:tiny is not built yet.
    num_layer_parameters: of one decoder layer, the largest unit that ZeRO-3 gathers at a time besides embeddings.
    digest: of config and weight files' headers and sizes; tokenizer_digest: of tokenizer and template.
    """

    name: str
    directory: str | None
    architecture: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int
    num_parameters: int
    num_layer_parameters: int
    targets: tuple[TargetModule, ...]
    digest: str
    tokenizer_digest: str
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What the plan knows of the data. Lengths are tokens a row, template included.

    num_long_rows: rows longer than data.max_length that were truncated or skipped, as data.long_rows says.
    num_rows_cut_inside: those of them that were cut inside a turn; all others that were truncated, between two.
    num_packs: sequences of up to data.max_length tokens that the training rows fill, none where they are not packed.
    mixture: where sources are mixed, each with its share of an epoch in words; num_train_rows is then of an epoch.
    warnings: what was found while the rows were read: rows in two splits, columns that are not used.
    """

    num_train_rows: int
    num_eval_rows: int
    num_test_rows: int
    mean_tokens: float
    p95_tokens: int
    max_tokens: int
    mean_trained_tokens: float
    num_long_rows: int
    format: str
    template: str
    digest: str
    num_rows_cut_inside: int = 0
    num_packs: int | None = None
    estimated: bool = False
    mixture: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def num_train_items(self) -> int:
        """What batches and epochs count: packs, or rows where they are not packed."""
        return self.num_train_rows if self.num_packs is None else self.num_packs


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """This machine. gpu_memory_bytes: of one GPU, 0 where there is none."""

    num_cpus: int
    memory_bytes: int
    num_gpus: int = 0
    gpu_memory_bytes: int = 0
