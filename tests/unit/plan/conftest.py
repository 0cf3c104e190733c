"""Facts and specs that the tests of the plan room share: a tiny base, Llama-3.1-8B as its config says, some rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pharos.plan.facts import BaseFacts, DataFacts, MachineFacts, TargetModule
from pharos.spec.model import SweepSpec

LAYER_8B = {
    "q_proj": (4096, 4096),
    "k_proj": (4096, 1024),
    "v_proj": (4096, 1024),
    "o_proj": (4096, 4096),
    "gate_proj": (4096, 14336),
    "up_proj": (4096, 14336),
    "down_proj": (14336, 4096),
}


@pytest.fixture
def llama_8b() -> BaseFacts:
    return BaseFacts(
        name="meta-llama/Llama-3.1-8B",
        directory=None,
        architecture="LlamaForCausalLM",
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        vocab_size=128256,
        max_position_embeddings=131072,
        num_parameters=8_030_261_248,
        num_layer_parameters=218_112_000,
        targets=tuple(
            TargetModule(name=f"model.layers.{layer}.{name}", d_in=d_in, d_out=d_out)
            for layer in range(32)
            for name, (d_in, d_out) in LAYER_8B.items()
        ),
        digest="base-8b",
        tokenizer_digest="tokenizer-8b",
    )


@pytest.fixture
def tiny_base() -> BaseFacts:
    shapes = [(128, 128)] * 4 + [(128, 344), (128, 344), (344, 128)]
    return BaseFacts(
        name="builtin:tiny",
        directory=None,
        architecture="LlamaForCausalLM",
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        vocab_size=2048,
        max_position_embeddings=512,
        num_parameters=1_315_000,
        num_layer_parameters=198_000,
        targets=tuple(
            TargetModule(name=f"model.layers.{layer}.{index}", d_in=d_in, d_out=d_out)
            for layer in range(4)
            for index, (d_in, d_out) in enumerate(shapes)
        ),
        digest="base-tiny",
        tokenizer_digest="tokenizer-tiny",
    )


@pytest.fixture
def rows() -> DataFacts:
    return DataFacts(
        num_train_rows=800,
        num_eval_rows=100,
        num_test_rows=200,
        mean_tokens=40.0,
        p95_tokens=60,
        max_tokens=80,
        mean_trained_tokens=10.0,
        num_long_rows=0,
        format="messages",
        template="chatml",
        digest="rows-800",
    )


@pytest.fixture
def machine() -> MachineFacts:
    return MachineFacts(num_cpus=2, memory_bytes=24 * 10**9)


MakeSpec = Callable[..., SweepSpec]


@pytest.fixture
def make_spec() -> MakeSpec:
    """make_spec(train={"batch_size": 16}, search=None): a small sweep with some sections changed or dropped."""

    def make(**changes: Any) -> SweepSpec:
        sections: dict[str, Any] = {
            "name": "toy",
            "base": "builtin:tiny",
            "data": {"train": "train.jsonl", "max_length": 256},
            "train": {"num_train_epochs": 2, "batch_size": 8, "micro_batch_size": 8},
            "search": {"num_trials": 24, "space": {"optim.learning_rate": {"log_uniform": [1e-5, 1e-2]}}},
            "pool": {"workers": 2, "seats_per_worker": 4},
        }
        for name, change in changes.items():
            both_sections = isinstance(change, dict) and isinstance(sections.get(name), dict)
            sections[name] = sections[name] | change if both_sections else change
        return SweepSpec(**sections)

    return make
