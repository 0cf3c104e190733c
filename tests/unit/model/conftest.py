"""Tiny random bases and adapters, made from a config and written by stock transformers and stock PEFT."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from pharos.model.tiny_tokenizer import ensure_tiny_tokenizer

MakeBase = Callable[..., Path]
MakeAdapter = Callable[..., Path]
SIZES = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer_dir(cache_dir: Path) -> Path:
    return ensure_tiny_tokenizer(cache_dir)


@pytest.fixture
def make_base(tmp_path: Path) -> MakeBase:
    """Write a base with random weights, biases included; keywords besides these are keys of its config."""

    def make(
        name: str = "base",
        *,
        dtype: torch.dtype = torch.float32,
        max_shard_size: str = "1GB",
        tokenizer: Path | None = None,
        **config: object,
    ) -> Path:
        directory = tmp_path / name
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SIZES | config), dtype=dtype)
        with torch.no_grad():
            for parameter in model.parameters():  # transformers starts biases at zero, which would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(directory, max_shard_size=max_shard_size)
        if tokenizer:
            shutil.copytree(tokenizer, directory, dirs_exist_ok=True)
        return directory

    return make


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Write a stock PEFT adapter for a base, with random A and B; keywords are LoraConfig's."""

    def make(base: Path, name: str = "adapter", **config: object) -> Path:
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False}
        get_peft_model(model, LoraConfig(**settings | config)).save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def stock_peft(base: Path, adapter: Path, dtype: torch.dtype = torch.float32) -> PeftModel:
    """The reference: base + adapter by stock PEFT alone."""
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), adapter).eval()
