"""What is timed: Pharos's own clocks, and the loop that people write around stock PEFT. Tiny models and rows for both.

Both train the same trials on the same rows in the same order from the same first draw of A.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tests.support.plans import HYPERPARAMETERS
from tests.support.token_rows import rows_in_memory
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, get_scheduler

from pharos.data.order import collate, row_order
from pharos.data.prepare import TokenRows
from pharos.model.adapter_bank import fresh_adapter
from pharos.model.targets import target_modules
from pharos.plan.exchange import Admit, Evict
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import TrialPlan
from pharos.train.clocks import train_round
from pharos.train.evaluation import mean_losses
from pharos.train.frozen_base import FrozenBase, ReplicatedBase
from pharos.train.group import Group, SingleProcess
from pharos.train.open_pool import make_pool
from pharos.train.seats import admit, evict, open_worker

VOCAB_SIZE = 512
IGNORED = -100
"""The label of a token that is not trained on, as transformers wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One training: the losses of all steps by trial, and the eval losses where they were asked for.

    seconds: of the clocks alone, on the wall. cpu_s: what this process computed meanwhile; what other processes take
    from it is not in there, so with one thread it is the steadier figure on a busy machine.
    """

    seconds: float
    cpu_s: float
    losses: dict[int, list[float]]
    scores: dict[int, float]


def llama(*, hidden_size: int, num_layers: int) -> nn.Module:
    """A small Llama with random weights, frozen."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=max(2, hidden_size // 32),
        num_key_value_heads=max(2, hidden_size // 32),
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=2048,
        initializer_range=0.1,  # wide enough that a random base gives adapters something to work with
    )
    return LlamaForCausalLM(config).requires_grad_(False).eval()


def random_rows(
    count: int,
    *,
    shortest: int,
    longest: int,
    trained_share: float = 1.0,
    seed: int = 0,
    vocab_size: int = VOCAB_SIZE,
) -> TokenRows:
    """Rows of `shortest` to `longest` tokens, of which the last share is trained.

    Most tokens follow from the one before, so that there is something to learn.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.integers(shortest, longest + 1, size=count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = generator.integers(1, vocab_size, size=offsets[-1])
    follows = generator.random(offsets[-1]) < 0.8
    for place in range(1, len(tokens)):
        if follows[place]:
            tokens[place] = 1 + (tokens[place - 1] * 7 + 3) % (vocab_size - 1)
    trained = np.ones(offsets[-1], dtype=np.uint8)
    for start, length in zip(offsets[:-1], lengths, strict=True):
        trained[start : start + round(length * (1 - trained_share))] = 0
    return rows_in_memory(tokens, trained, offsets)


def trial(number: int, *, num_steps: int, batch_size: int, r: int = 8, learning_rate: float = 2e-3) -> TrialPlan:
    """A trial whose steps are one clock long. Its seed is its number; all trials see the same rows."""
    hyperparameters = replace(
        HYPERPARAMETERS,
        r=r,
        lora_alpha=2 * r,
        learning_rate=learning_rate,
        warmup_ratio=0.03,
        max_steps=num_steps,
        batch_size=batch_size,
        seed=number,
    )
    return TrialPlan(number=number, params={}, hyperparameters=hyperparameters, num_steps=num_steps, clocks_per_step=1)


class Seats:
    """A rank of a pool, whose clocks are timed without evaluation, checkpoints or exchange."""

    def __init__(
        self,
        base: FrozenBase,
        rows: TokenRows,
        *,
        num_seats: int,
        micro_batch_size: int,
        r_max: int,
        group: Group | None = None,
        eval_rows: TokenRows | None = None,
    ) -> None:
        self._group = group or SingleProcess(device=torch.device("cpu"))
        settings = PoolSettings(
            pool="pool-0",
            base_key="",
            base_dir="",
            data_dir="",
            trials_dir="",
            workers=self._group.world_size,
            seats_per_worker=num_seats,
            placement="local",
            sharding="replicate" if isinstance(base, ReplicatedBase) else "zero3",
            target_modules="all-linear",
            r_max=r_max,
            micro_batch_size=micro_batch_size,
            report_every=1,
            metric="eval_loss",
            metric_scope="last",
            dtype="float32",
            activation_checkpointing=False,
            trust_remote_code=False,
        )
        data = {"train": rows, "eval": eval_rows or rows, "test": rows}
        self._worker = open_worker(
            settings, make_pool(settings, base=base, data=data, device=self._group.device), self._group
        )

    def train(self, trials: Sequence[TrialPlan], *, evaluate: bool = False) -> Timed:
        """Train trials of one length together, the first in this rank's first seat, from admission to eviction."""
        first = self._worker.first_seat
        for place, plan in enumerate(trials):
            admit(self._worker, Admit(seat=first + place, trial=plan))
        with stopwatch(self._group.device) as elapsed:
            log = train_round(self._worker, trials[0].num_clocks)
        scores = self._evaluate(range(len(trials))) if evaluate else []
        for place, plan in enumerate(trials):
            evict(self._worker, Evict(seat=first + place, number=plan.number))
        return Timed(
            seconds=elapsed[0],
            cpu_s=elapsed[1],
            losses={plan.number: [step.loss for step in log.steps[i]] for i, plan in enumerate(trials)},
            scores={plan.number: score for plan, score in zip(trials, scores, strict=False)},
        )

    def _evaluate(self, seats: Sequence[int]) -> list[float]:
        pool = self._worker.pool
        return mean_losses(
            pool.data["eval"],
            seats,
            base=pool.base,
            bank=pool.bank,
            group=self._group,
            micro_batch_size=self._worker.settings.micro_batch_size,
            split_rows=False,
        )


class PeftLoop:
    """One trial at a time with stock PEFT, torch's AdamW and transformers' schedule. Its batches lie ready: their
    making is not timed, which favours it.

    autocast: run forward passes under bfloat16 autocast, as a Trainer with bf16=True does.
    """

    def __init__(self, model: nn.Module, rows: TokenRows, *, r: int, autocast: bool = False) -> None:
        self._rows, self._autocast, self._r = rows, autocast, r
        self._targets = target_modules(model, "all-linear")
        config = LoraConfig(r=r, lora_alpha=2 * r, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        # PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        self._model = get_peft_model(model, config).train()
        self._device = next(model.parameters()).device

    def train(self, plan: TrialPlan) -> Timed:
        """Train a trial of rank r from its own first draw."""
        chosen = plan.hyperparameters
        self._draw(chosen.seed)
        batches = [self._batch(plan, step) for step in range(plan.num_steps)]
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters,
            lr=chosen.learning_rate,
            betas=(chosen.adam_beta1, chosen.adam_beta2),
            eps=chosen.adam_epsilon,
            weight_decay=chosen.weight_decay,
        )
        scheduler = get_scheduler(
            chosen.lr_scheduler_type,
            optimizer,
            num_warmup_steps=math.ceil(chosen.warmup_ratio * plan.num_steps),
            num_training_steps=plan.num_steps,
        )
        losses = []
        with stopwatch(self._device) as elapsed:
            for batch in batches:
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                    loss = self._model(**batch, use_cache=False).loss
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, chosen.max_grad_norm)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                losses.append(loss.detach())
        step_losses = torch.stack(losses).tolist()
        return Timed(seconds=elapsed[0], cpu_s=elapsed[1], losses={plan.number: step_losses}, scores={})

    def unload(self) -> nn.Module:
        """The model as it was, without PEFT."""
        return self._model.unload()

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        for name, (a, b) in fresh_adapter(self._targets, r=self._r, seed=seed).items():
            module = self._model.get_submodule(f"base_model.model.{name}")
            module.lora_A["default"].weight.copy_(a)
            module.lora_B["default"].weight.copy_(b)

    def _batch(self, plan: TrialPlan, step: int) -> dict[str, torch.Tensor]:
        chosen = plan.hyperparameters
        size = chosen.batch_size
        batch = collate(self._rows, row_order(len(self._rows), chosen.data_seed, step * size, size), pad_id=0)
        tokens, trained = torch.from_numpy(batch.tokens), torch.from_numpy(batch.trained)
        mask = torch.arange(tokens.shape[1]) < torch.from_numpy(batch.lengths)[:, None]
        fields = {"input_ids": tokens, "attention_mask": mask.long(), "labels": tokens.where(trained, IGNORED)}
        return {name: field.to(self._device) for name, field in fields.items()}


def replicated(model: nn.Module) -> ReplicatedBase:
    """A pool's base around a copy of the model."""
    return ReplicatedBase(copy.deepcopy(model))


@contextmanager
def stopwatch(device: torch.device) -> Iterator[list[float]]:
    """Seconds on the wall and of this process's computing, from entry to exit, once the device has done its work."""
    elapsed: list[float] = []
    _synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    yield elapsed
    _synchronise(device)
    elapsed += [time.perf_counter() - wall, time.process_time() - cpu]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def largest_difference(first: dict[int, list[float]], second: dict[int, list[float]]) -> float:
    """Between the final losses of the trials that both hold."""
    return max(abs(first[number][-1] - second[number][-1]) for number in first.keys() & second.keys())
