"""Specs and plans for tests that need one, made from facts that no file has to back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pharos.plan.facts import BaseFacts, DataFacts, MachineFacts, TargetModule
from pharos.plan.hyperparameters import Hyperparameters
from pharos.plan.sweep_plan import SweepPlan, plan_sweep
from pharos.spec.model import SweepSpec

SPACE = {"optim.learning_rate": {"log_uniform": [1e-5, 1e-2]}}

BASE = BaseFacts(
    name="builtin:tiny",
    directory=None,
    architecture="LlamaForCausalLM",
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    vocab_size=64,
    max_position_embeddings=64,
    num_parameters=10_000,
    num_layer_parameters=3_000,
    targets=(TargetModule(name="model.layers.0.self_attn.q_proj", d_in=16, d_out=16),),
    digest="base",
    tokenizer_digest="tokenizer",
)
DATA = DataFacts(
    num_train_rows=320,
    num_eval_rows=16,
    num_test_rows=16,
    mean_tokens=20.0,
    p95_tokens=30,
    max_tokens=32,
    mean_trained_tokens=8.0,
    num_long_rows=0,
    format="messages",
    template="tokenizer",
    digest="data",
)
MACHINE = MachineFacts(num_cpus=2, memory_bytes=16 * 10**9)

HYPERPARAMETERS = Hyperparameters(
    r=4,
    lora_alpha=8,
    lora_dropout=0.0,
    use_rslora=False,
    learning_rate=3e-4,
    adam_beta1=0.9,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    weight_decay=0.0,
    max_grad_norm=1.0,
    lr_scheduler_type="linear",
    warmup_ratio=0.0,
    num_train_epochs=1,
    max_steps=None,
    batch_size=8,
    seed=0,
    data_seed=0,
)
"""Plain ones; a test that means others says which with `dataclasses.replace`."""


def a_spec(*, max_steps: int = 40, num_trials: int = 8, **sections: Any) -> SweepSpec:
    """A small sweep over the learning rate."""
    fields: dict[str, Any] = {
        "name": "a-sweep",
        "base": "builtin:tiny",
        "data": {"train": "builtin:docker-commands", "max_length": 32},
        "train": {"max_steps": max_steps},
        "search": {"space": SPACE, "num_trials": num_trials},
        "pool": {"workers": 2, "seats_per_worker": 2},
    }
    return SweepSpec.model_validate(fields | sections)


def a_plan(spec: SweepSpec, **changes: Any) -> SweepPlan:
    """The spec's plan over the facts above, with fields replaced as a test wants them."""
    return replace(plan_sweep(spec, BASE, DATA, MACHINE), **changes)
