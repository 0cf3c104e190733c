"""What one worker holds in memory, and whether the base is sharded or replicated. Pure arithmetic over facts.

The formulas are for Llama-like decoders; each says what it counts. They are meant to be a little too high, never too
low: a worker that runs out of memory takes all trials of its pool with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pharos.errors import PlanError
from pharos.plan.budget import any_dropout, largest_rank, num_shards
from pharos.plan.facts import BaseFacts, DataFacts, MachineFacts
from pharos.plan.metrics import asked_answers
from pharos.spec.model import SweepSpec

GB = 10**9
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}

SEAT_BYTES_PER_PARAMETER = 16
"""An adapter parameter, its gradient and two Adam moments, in fp32."""
WORKER_HOST_BYTES = 700 * 10**6
"""A worker process on a CPU: Python, torch, Ray, transformers, DeepSpeed. Measured: 570 MB after the imports."""
GPU_CONTEXT_BYTES = 1 * GB
"""On a GPU: CUDA context, NCCL buffers, fragments of the allocator."""
PROXY_BYTES = 180 * 10**6
"""A seat's Ray Tune process on the head node. Measured with ray 2.60."""
DRIVER_BYTES = 1 * GB
"""Driver, desk and Ray's own processes on the head node."""
USABLE_SHARE = 0.8
"""Of a machine's memory; the rest is for the operating system, its file cache and Ray's object store."""
LOGITS_CHUNK_TOKENS = 1024
"""Tokens whose logits are held in fp32 at a time by the loss."""

Dtype = Literal["float32", "bfloat16"]
Sharding = Literal["zero3", "replicate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes of one worker. `budget_bytes` is what it may use; `head_bytes` lie on the head node, beside the workers."""

    base_bytes: int
    seats_bytes: int
    activations_bytes: int
    host_bytes: int
    budget_bytes: int
    head_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.base_bytes + self.seats_bytes + self.activations_bytes + self.host_bytes

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.budget_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardingChoice:
    sharding: Sharding
    reason: str
    memory: MemoryPlan


def base_dtype(spec: SweepSpec) -> Dtype:
    """Of the frozen base. auto: bfloat16 on a GPU, float32 on a CPU, where it is both slower and coarser."""
    if spec.train.dtype == "auto":
        return "bfloat16" if spec.pool.gpus_per_worker > 0 else "float32"
    return spec.train.dtype


def choose_sharding(spec: SweepSpec, base: BaseFacts, data: DataFacts, machine: MachineFacts) -> ShardingChoice:
    """Replicate the base where it fits one worker with its seats, else shard it: a replica needs no gathers.

    Raises PlanError where neither fits, with the smallest changes that would.
    """
    plans: dict[Sharding, MemoryPlan] = {
        sharding: memory_plan(spec, base, data, machine, sharding=sharding) for sharding in ("replicate", "zero3")
    }
    whole, shard = plans["replicate"], plans["zero3"]
    budget = gigabytes(whole.budget_bytes)
    if spec.pool.sharding != "auto":
        sharding, reason = spec.pool.sharding, f"pool.sharding={spec.pool.sharding}"
    elif whole.fits:
        sharding = "replicate"
        reason = f"a whole base and its seats take {gigabytes(whole.total_bytes)} of a worker's {budget}"
    else:
        sharding = "zero3"
        reason = (
            f"a whole base and its seats would take {gigabytes(whole.total_bytes)} of a worker's {budget}; "
            f"sharded over {spec.pool.workers} it takes {gigabytes(shard.total_bytes)}"
        )
    if not plans[sharding].fits:
        raise PlanError(_does_not_fit(spec, base, data, machine, sharding=sharding, memory=plans[sharding]))
    return ShardingChoice(sharding=sharding, reason=reason, memory=plans[sharding])


def memory_plan(
    spec: SweepSpec, base: BaseFacts, data: DataFacts, machine: MachineFacts, *, sharding: Sharding
) -> MemoryPlan:
    """Peak bytes of one worker while it trains."""
    on_gpu = spec.pool.gpus_per_worker > 0
    return MemoryPlan(
        base_bytes=base_bytes(base, dtype=base_dtype(spec), workers=spec.pool.workers if sharding == "zero3" else 1),
        seats_bytes=SEAT_BYTES_PER_PARAMETER
        * adapter_parameters(base, r=largest_rank(spec))
        * spec.pool.seats_per_worker,
        # The two never stand side by side: answers are generated between clocks.
        activations_bytes=max(activations_bytes(spec, base, data), generation_bytes(spec, base, data)),
        host_bytes=GPU_CONTEXT_BYTES if on_gpu else WORKER_HOST_BYTES,
        budget_bytes=_budget_bytes(spec, machine),
        head_bytes=_head_bytes(spec),
    )


def base_bytes(base: BaseFacts, *, dtype: Dtype, workers: int) -> int:
    """The frozen base on one of `workers` that share it: whole for one.

    Sharded: its share, and two of the largest units that are gathered at a time (a decoder layer or an embedding):
    the one that computes and the one that is fetched ahead.
    """
    if workers == 1:
        return DTYPE_BYTES[dtype] * base.num_parameters
    largest_unit = max(base.num_layer_parameters, base.vocab_size * base.hidden_size)
    return DTYPE_BYTES[dtype] * (-(-base.num_parameters // workers) + 2 * largest_unit)


def adapter_parameters(base: BaseFacts, *, r: int) -> int:
    """Parameters of one adapter of rank r: A (r, d_in) and B (d_out, r) of every target module."""
    return r * sum(target.d_in + target.d_out for target in base.targets)


def longest_sequence(spec: SweepSpec, data: DataFacts) -> int:
    """Tokens of the longest sequence of a batch: a full pack, or the longest row."""
    return spec.data.max_length if spec.data.packing else min(data.max_tokens, spec.data.max_length)


def activations_bytes(spec: SweepSpec, base: BaseFacts, data: DataFacts) -> int:
    """What a worker keeps between forward and backward, for all its seats with a full micro-batch of longest rows.

    All layers' saved tensors, or with activation checkpointing only each layer's input and one layer's tensors; one
    layer more for the gradients that flow through it; logits of the trained tokens with their gradients in the base's
    dtype, and one chunk of them in fp32.
    """
    dtype_bytes = DTYPE_BYTES[base_dtype(spec)]
    rows = min(spec.train.micro_batch_size, -(-spec.train.batch_size // num_shards(spec)))
    num_tokens = spec.pool.seats_per_worker * rows * longest_sequence(spec, data)
    layer = num_tokens * _layer_bytes_per_token(spec, base)
    if spec.train.activation_checkpointing:
        layers = base.num_hidden_layers * num_tokens * base.hidden_size * dtype_bytes + 2 * layer
    else:
        layers = (base.num_hidden_layers + 1) * layer
    num_trained = num_tokens * min(1.0, data.mean_trained_tokens / data.mean_tokens)
    logits = int(2 * num_trained * base.vocab_size * dtype_bytes)
    logits_chunk = 2 * min(num_tokens, LOGITS_CHUNK_TOKENS) * base.vocab_size * 4
    return layers + logits + logits_chunk


def generation_bytes(spec: SweepSpec, base: BaseFacts, data: DataFacts) -> int:
    """What a worker keeps while its seats answer: keys and values of every token so far, and the last logits.

    Keys and values count in full, though grouped ones are smaller; 0 where no answers are asked for.
    """
    asked = asked_answers(spec)
    if asked is None:
        return 0
    rows = spec.pool.seats_per_worker * min(asked.max_rows, data.num_eval_rows)
    num_tokens = rows * (min(data.max_tokens, spec.data.max_length) + asked.max_new_tokens)
    dtype_bytes = DTYPE_BYTES[base_dtype(spec)]
    return dtype_bytes * (2 * base.num_hidden_layers * base.hidden_size * num_tokens + rows * base.vocab_size)


def gigabytes(num_bytes: int) -> str:
    """As people say it: 16.1 GB, and megabytes below a tenth of one."""
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB / 10 else f"{num_bytes / 10**6:.0f} MB"


def _layer_bytes_per_token(spec: SweepSpec, base: BaseFacts) -> int:
    """Saved tensors of one decoder layer whose weights are frozen and whose linear layers carry adapters.

    With hidden size H and intermediate size I: queries, keys, values and output of attention, its output once more as
    input of an adapter, two normalised inputs (6H); gate, its activation, up and their product (4I); each target's
    B-side input (r); two norms' inputs in fp32 (8H bytes). Keys and values count in full, though grouped ones are
    smaller. With dropout each target keeps its own input and mask, in place of the inputs that targets share.
    Counted by autograd's saved-tensor hooks in a Llama of hidden size 256: 3 to 14 % below this formula.
    """
    dtype_bytes = DTYPE_BYTES[base_dtype(spec)]
    hidden, intermediate = base.hidden_size, base.intermediate_size
    targets_per_layer = len(base.targets) / base.num_hidden_layers
    elements = 7 * hidden + 4 * intermediate + int(largest_rank(spec) * targets_per_layer)
    if any_dropout(spec):
        inputs_per_layer = sum(target.d_in for target in base.targets) // base.num_hidden_layers
        elements += 2 * inputs_per_layer - min(3 * hidden + intermediate, inputs_per_layer)
    return dtype_bytes * elements + 8 * hidden


def _budget_bytes(spec: SweepSpec, machine: MachineFacts) -> int:
    """Memory that one worker may use: as the spec says, else its GPU's, else its part of this machine's."""
    if spec.pool.worker_memory_gb is not None:
        return int(spec.pool.worker_memory_gb * GB)
    if spec.pool.gpus_per_worker > 0:
        if machine.gpu_memory_bytes == 0:
            raise PlanError(
                f"pool.gpus_per_worker={spec.pool.gpus_per_worker:g}, but this machine shows no GPU whose memory could "
                "be read. Set pool.worker_memory_gb to the memory of one GPU of the workers, for instance 80."
            )
        return int(min(1.0, spec.pool.gpus_per_worker) * machine.gpu_memory_bytes)
    workers = spec.pool.count.min * spec.pool.workers  # further pools need further nodes
    return max(0, int(USABLE_SHARE * machine.memory_bytes) - _head_bytes(spec)) // workers


def _head_bytes(spec: SweepSpec) -> int:
    num_seats = spec.pool.seats_per_worker * (spec.pool.workers if spec.pool.placement == "local" else 1)
    num_trials = spec.search.num_trials if spec.search else 1
    return DRIVER_BYTES + PROXY_BYTES * min(spec.pool.count.max * num_seats, num_trials)


def _does_not_fit(
    spec: SweepSpec,
    base: BaseFacts,
    data: DataFacts,
    machine: MachineFacts,
    *,
    sharding: Sharding,
    memory: MemoryPlan,
) -> str:
    """The message of a plan that does not fit: by how much, and every single change that would make it fit."""

    def fits(**pool_and_train: object) -> bool:
        return memory_plan(_with(spec, **pool_and_train), base, data, machine, sharding=sharding).fits

    micro = spec.train.micro_batch_size
    seats = next((n for n in range(spec.pool.seats_per_worker - 1, 0, -1) if fits(seats_per_worker=n)), None)
    rows = next((n for n in range(micro - 1, 0, -1) if micro % n == 0 and fits(micro_batch_size=n)), None)
    remedies = []
    if seats is not None:
        remedies.append(f"pool.seats_per_worker={seats}")
    if rows is not None:
        remedies.append(f"train.micro_batch_size={rows}")
    if not spec.train.activation_checkpointing and fits(activation_checkpointing=True):
        remedies.append("train.activation_checkpointing=true")
    if sharding == "replicate" and memory_plan(spec, base, data, machine, sharding="zero3").fits:
        remedies.append("pool.sharding=zero3")
    if sharding == "zero3":
        workers = next((n for n in _more(spec.pool.workers) if fits(workers=n)), None)
        remedies += [f"pool.workers={workers}"] if workers is not None else []
    parts = (
        f"base {gigabytes(memory.base_bytes)}, {spec.pool.seats_per_worker} seats {gigabytes(memory.seats_bytes)}, "
        f"activations {gigabytes(memory.activations_bytes)}, process {gigabytes(memory.host_bytes)}"
    )
    least = memory_plan(
        _with(spec, seats_per_worker=1, micro_batch_size=1, activation_checkpointing=True),
        *(base, data, machine),
        sharding=sharding,
    )
    if remedies:
        remedy = "It would fit with " + ", or with ".join(remedies) + "."
    elif least.fits:
        remedy = (
            "It would fit with pool.seats_per_worker=1, train.micro_batch_size=1 and "
            "train.activation_checkpointing=true together."
        )
    else:
        remedy = (
            f"Even one seat with micro-batches of one row and activation checkpointing needs "
            f"{gigabytes(least.total_bytes)}: it takes workers with more memory, or a smaller base."
        )
    return (
        f"the sweep does not fit: a worker needs {gigabytes(memory.total_bytes)} ({parts}) "
        f"and may use {gigabytes(memory.budget_bytes)}. {remedy}"
    )


def _more(workers: int) -> range:
    return range(workers + 1, max(8 * workers, 64) + 1)


def _with(spec: SweepSpec, **values: object) -> SweepSpec:
    """The spec with some fields of its pool and train sections changed."""
    pool = {name: value for name, value in values.items() if name in type(spec.pool).model_fields}
    train = {name: value for name, value in values.items() if name in type(spec.train).model_fields}
    return spec.model_copy(
        update={"pool": spec.pool.model_copy(update=pool), "train": spec.train.model_copy(update=train)}
    )
