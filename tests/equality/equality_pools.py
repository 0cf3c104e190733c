"""Tiny models, rows, trials, and a pool run from first admission to last eviction, for the equality tests."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.support.plans import HYPERPARAMETERS
from tests.support.token_rows import rows_in_memory
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from pharos.data.prepare import TokenRows
from pharos.model.adapter_files import read_adapter
from pharos.plan.exchange import Admit, Evict, Orders, RoundReport, SeatReport, Split, StepMetrics
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import TrialPlan
from pharos.train.frozen_base import ReplicatedBase
from pharos.train.group import Group, SingleProcess
from pharos.train.loop import run_pool
from pharos.train.open_pool import Pool, make_pool

Rows = dict[Split, TokenRows]
VOCAB_SIZE = 61


def phi(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    config = PhiConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=32,
        initializer_range=0.3,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attention_dropout=0.0,
    )
    return PhiForCausalLM(config).to(dtype).requires_grad_(False).eval()


def llama(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).to(dtype).requires_grad_(False).eval()


def token_rows(count: int, *, seed: int) -> TokenRows:
    """Random rows of 4 to 20 tokens, of which the last part is trained."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(4, 21, size=count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    trained = np.zeros(offsets[-1], dtype=np.uint8)
    for start, end in itertools.pairwise(offsets):
        trained[generator.integers(start, end - 1) : end] = 1
    return rows_in_memory(generator.integers(1, VOCAB_SIZE, size=offsets[-1]), trained, offsets)


def rows_of_all_splits() -> Rows:
    """29 training rows, so that epochs and batches do not line up; 7 eval and 5 test rows."""
    return {"train": token_rows(29, seed=1), "eval": token_rows(7, seed=2), "test": token_rows(5, seed=3)}


PLAIN = replace(HYPERPARAMETERS, learning_rate=5e-3, adam_beta2=0.99, batch_size=2)


def trial(number: int, *, num_steps: int = 12, micro_batch_size: int = 2, shards: int = 1, **changes: Any) -> TrialPlan:
    hyperparameters = replace(PLAIN, **changes)
    return TrialPlan(
        number=number,
        params={},
        hyperparameters=hyperparameters,
        num_steps=num_steps,
        clocks_per_step=-(-hyperparameters.batch_size // (micro_batch_size * shards)),
    )


MIXED = (
    trial(
        0, num_steps=30, r=2, lora_alpha=16, learning_rate=1e-2, weight_decay=0.1, adam_beta2=0.999, warmup_ratio=0.2
    ),
    trial(1, num_steps=30, r=5, use_rslora=True, max_grad_norm=0.0, lr_scheduler_type="cosine", data_seed=3),
    trial(
        2, num_steps=24, r=8, seed=7, max_grad_norm=0.3, adam_epsilon=1e-3, lr_scheduler_type="constant", batch_size=5
    ),
    trial(3, num_steps=30, r=1, adam_beta1=0.5, lr_scheduler_type="polynomial", warmup_ratio=0.05, batch_size=1),
)
"""Trials that differ in everything that they may, dropout apart; their steps take 1, 1, 3 and 1 clocks of 2 rows."""
WITH_DROPOUT = tuple(
    replace(plan, hyperparameters=replace(plan.hyperparameters, lora_dropout=rate))
    for plan, rate in zip(MIXED, (0.1, 0.0, 0.5, 0.3), strict=True)
)


SHORT = tuple(replace(plan, num_steps=steps) for plan, steps in zip(WITH_DROPOUT, (12, 8, 3, 5), strict=True))
"""Short ones for where a clock is slow: on two ranks of two seats, the second is empty while the first goes on."""
SPLIT = trial(0, r=4, batch_size=8, num_steps=6, micro_batch_size=1, shards=2, lora_dropout=0.2, max_grad_norm=0.5)
SPLIT_ODD = trial(1, r=2, batch_size=5, num_steps=6, micro_batch_size=1, shards=2, seed=4, weight_decay=0.1)
"""Two trials of a data-parallel pool of two ranks, with accumulation; the second's rows cannot be shared out evenly."""


@dataclass(slots=True, kw_only=True)
class Run:
    """All that a trial reported. checkpoint: its last directory."""

    steps: list[StepMetrics] = field(default_factory=list)
    eval_losses: list[float] = field(default_factory=list)
    last: SeatReport | None = None

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    @property
    def norms(self) -> list[float]:
        return [step.grad_norm for step in self.steps]

    @property
    def checkpoint(self) -> Path:
        assert self.last is not None
        assert self.last.checkpoint is not None
        return Path(self.last.checkpoint)

    @property
    def adapter(self) -> dict[str, torch.Tensor]:
        """Every tensor of the last checkpoint's adapter."""
        tensors = read_adapter(self.checkpoint).tensors
        return {
            f"{name}.{part}": tensor for name, pair in tensors.items() for part, tensor in zip("AB", pair, strict=True)
        }


@dataclass(slots=True, kw_only=True)
class ScriptedDesk:
    """Fills free seats from a queue, frees those of ended trials, closes when all have ended or after `stop_after`."""

    num_seats: int
    queue: list[Admit]
    stop_after: int | None = None
    runs: dict[int, Run] = field(default_factory=dict)
    reports: list[RoundReport] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    def exchange(self, report: RoundReport) -> Orders:
        self.reports.append(report)
        evicted = []
        for seat in report.seats:
            run = self.runs[seat.number]
            run.steps += seat.steps
            run.eval_losses += seat.eval_metrics.values()
            run.last = seat
            if seat.done or seat.diverged:
                evicted.append(Evict(seat=seat.seat, number=seat.number))
        self.taken -= {order.seat for order in evicted}
        if self.stop_after is not None and report.round >= self.stop_after:
            return Orders(close=True)
        admitted = [order for order in self.queue if order.seat not in self.taken]
        admitted = list({order.seat: order for order in reversed(admitted)}.values())
        for order in admitted:
            self.queue.remove(order)
            self.runs.setdefault(order.trial.number, Run())
        self.taken |= {order.seat for order in admitted}
        return Orders(evict=tuple(evicted), admit=tuple(admitted), close=not self.taken)


def settings(trials_dir: Path, **changes: Any) -> PoolSettings:
    plain = PoolSettings(
        pool="pool-0",
        base_key="key",
        base_dir="tiny",
        data_dir="",
        trials_dir=str(trials_dir),
        workers=1,
        seats_per_worker=4,
        placement="local",
        sharding="replicate",
        target_modules="all-linear",
        r_max=8,
        micro_batch_size=2,
        report_every=10,
        metric="eval_loss",
        metric_scope="best",
        dtype="float32",
        activation_checkpointing=False,
        trust_remote_code=False,
    )
    return replace(plain, **changes)


def pool_of(model: nn.Module, rows: Rows, chosen: PoolSettings) -> Pool:
    """A replicated pool around a copy of a model; adapters in double precision if the model is, in single otherwise."""
    base = ReplicatedBase(copy.deepcopy(model))
    dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
    return make_pool(chosen, base=base, data=rows, device=torch.device("cpu"), dtype=dtype)


def train(
    model: nn.Module,
    rows: Rows,
    trials: Sequence[TrialPlan] | Mapping[int, TrialPlan],
    chosen: PoolSettings,
    *,
    checkpoints: Mapping[int, Path] | None = None,
    stop_after: int | None = None,
    hurried_at: int | None = None,
) -> dict[int, Run]:
    """Train trials in one pool, each in the seat of its place (or key), and return what each of them reported.

    hurried_at: at which look the pool hears that it has to end its round at once; in the first round it looks up after
    each clock.
    """
    seats = trials if isinstance(trials, Mapping) else dict(enumerate(trials))
    return train_in(
        pool_of(model, rows, chosen),
        seats,
        chosen,
        SingleProcess(device=torch.device("cpu")),
        checkpoints=checkpoints,
        stop_after=stop_after,
        hurried_at=hurried_at,
    ).runs


def train_in(
    pool: Pool,
    seats: Mapping[int, TrialPlan],
    chosen: PoolSettings,
    group: Group,
    *,
    checkpoints: Mapping[int, Path] | None = None,
    stop_after: int | None = None,
    hurried_at: int | None = None,
) -> ScriptedDesk:
    """The same on every rank of a group, with a pool that is there already. Seat n + i queues for seat i of n."""
    from_disk = checkpoints or {}
    queue = [
        Admit(
            seat=seat % chosen.num_seats,
            trial=plan,
            checkpoint=str(from_disk[plan.number]) if plan.number in from_disk else None,
        )
        for seat, plan in seats.items()
    ]
    desk = ScriptedDesk(num_seats=chosen.num_seats, queue=queue, stop_after=stop_after)
    looks = itertools.count(1)
    run_pool(
        settings=chosen,
        pool=pool,
        group=group,
        exchange=desk.exchange,
        is_hurried=lambda: next(looks) == hurried_at,
    )
    return desk


def distance(first: Run, second: Run) -> float:
    """The largest difference between two runs: losses, norms, evaluations and the final adapter."""
    assert len(first.steps) == len(second.steps) > 0
    pairs = [(first.losses, second.losses), (first.norms, second.norms)]
    if first.eval_losses and second.eval_losses:
        pairs.append((first.eval_losses[-1:], second.eval_losses[-1:]))
    scalars = max(float(np.abs(np.array(a) - np.array(b)).max()) for a, b in pairs)
    mine, other = first.adapter, second.adapter
    assert set(mine) == set(other)
    return max(scalars, *(float((mine[name] - other[name]).abs().max()) for name in mine))
