"""Kinds of adapters beyond plain LoRA: merged as stock PEFT merges them, or refused; never something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tests.unit.model.conftest import MakeAdapter, MakeBase, stock_peft
from transformers import AutoModelForCausalLM

from pharos.errors import HandOverError
from pharos.model import merge_shards
from pharos.model.adapter_updates import HARMLESS, READ, read_updates
from pharos.model.merge import merge_adapter, verify_manifest
from pharos.model.parity import check_parity

TOKENS = torch.tensor([[5, 17, 3, 90, 44]])
KINDS: dict[str, dict[str, Any]] = {
    "ranks and alphas by module": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7},
        "alpha_pattern": {"q_proj": 3, "model.layers.0.mlp.down_proj": 32},
    },
    "ranks by module, rank-stabilised": {"rank_pattern": {"k_proj": 3}, "use_rslora": True},
    "DoRA": {"use_dora": True},
    "DoRA, rank-stabilised": {"use_dora": True, "use_rslora": True, "rank_pattern": {"v_proj": 1}},
    "output layer": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "both": {"target_modules": ["embed_tokens", "lm_head"]},
    "modules to save": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "norm"]},
}


def change_config(adapter: Path, **values: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def make_changed(base: Path, adapter: Path, **config: Any) -> Path:
    """An adapter whose saved modules, magnitudes and saved base layers differ from the base's."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False} | config
    trained = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "modules_to_save" in name or "magnitude" in name or "base_layer" in name:
                parameter.add_(torch.rand_like(parameter) * 0.1)
    trained.save_pretrained(adapter)
    return adapter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_bytes", [1 << 25, 700])
def test_it_merges_as_stock_peft_merges(
    make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, block_bytes: int
) -> None:
    monkeypatch.setattr(merge_shards, "BLOCK_BYTES", block_bytes)  # a tensor is merged by few rows at a time, too
    base = make_base(max_shard_size="20KB")
    adapter = make_changed(base, tmp_path / "adapter", **KINDS[kind])
    merge_adapter(base, adapter, tmp_path / "merged")
    verify_manifest(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    expected = stock_peft(base, adapter)(TOKENS).logits
    assert (merged(TOKENS).logits - expected).abs().max() < 1e-5
    untrained = AutoModelForCausalLM.from_pretrained(base).eval()
    assert (merged(TOKENS).logits - untrained(TOKENS).logits).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_its_parity_check_passes_and_sees_a_wrong_merge(
    make_base: MakeBase, tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    base = make_base(dtype=dtype)
    adapter = make_changed(base, tmp_path / "adapter", **KINDS[kind])
    merged = tmp_path / "merged"
    merge_adapter(base, adapter, merged)
    check_parity(base, adapter, merged, TOKENS.tolist(), max_rounding=1.0)
    tensors = load_file(merged / "model.safetensors")
    changed = next(iter(read_updates(adapter)))
    save_file(tensors | {changed: tensors[changed] * 1.2}, merged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HandOverError, match=r"differs from base \+ adapter"):
        check_parity(base, adapter, merged, TOKENS.tolist(), max_rounding=1.0)


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("way", ["target_modules", "modules_to_save"])
@pytest.mark.parametrize("stored", ["once", "twice"])
def test_one_matrix_with_two_uses_is_not_changed(
    make_base: MakeBase, tmp_path: Path, module: str, way: str, stored: str
) -> None:
    base = make_base(tie_word_embeddings=True)
    if stored == "twice":
        tensors = load_file(base / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    chosen = {"target_modules": ["q_proj"]} | {way: [module] if way == "modules_to_save" else ["q_proj", module]}
    adapter = make_changed(base, tmp_path / "adapter", **chosen)
    with pytest.raises(HandOverError, match=rf"{module}, and the base uses one matrix as embedding and as output"):
        merge_adapter(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_matrix_stored_twice_is_copied_twice(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    base = make_base(tie_word_embeddings=True)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert (merged(TOKENS).logits - stock_peft(base, adapter)(TOKENS).logits).abs().max() < 1e-5


def test_conv1d_weights_lie_the_other_way_round(make_base: MakeBase, tmp_path: Path) -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "n_positions": 64}
    base = make_base(**gpt2)
    adapter = make_changed(base, tmp_path / "adapter", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert (merged(TOKENS).logits - stock_peft(base, adapter)(TOKENS).logits).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type=LOHA cannot be merged"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights=pissa_niter_16 changes the base"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora changes the base"),
        ({"bias": "lora_only"}, "bias=lora_only cannot be merged"),
        ({"lora_bias": True}, "lora_bias=True cannot be merged"),
        ({"layer_replication": [[0, 2]]}, "layer_replication="),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens="),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora="),
        ({"a_setting_of_next_year": 3}, "a_setting_of_next_year=3 cannot be merged"),
        ({"use_dora": True}, "has no magnitude of model.layers.0"),
        ({"use_dora": True, "fan_in_fan_out": True}, "use_dora and fan_in_fan_out together"),
        ({"rank_pattern": {"q_proj": 2}}, "q_proj do not have rank r=2"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    base = make_base()
    adapter = make_adapter(base)
    change_config(adapter, **changes)
    with pytest.raises(HandOverError, match=message):
        merge_adapter(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_tensors_of_no_known_meaning_are_refused(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    adapter = make_adapter(base)
    contents = load_file(adapter / "adapter_model.safetensors")
    for name in ("model.layers.0.mlp.up_proj.lora_diag", "model.layers.0.mlp.up_proj.lora_magnitude_vector"):
        save_file(contents | {f"base_model.model.{name}": torch.ones(48)}, adapter / "adapter_model.safetensors")
        with pytest.raises(HandOverError, match=r"holds base_model.model.*lora_diag|has a magnitude of"):
            merge_adapter(base, adapter, tmp_path / "merged")


def test_a_vocabulary_that_has_grown_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    base = make_base()
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(104)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(HandOverError, match=r"is for a weight of shape \(104, 32\), the base's has \(96"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")


def test_every_setting_of_stock_peft_is_read_harmless_or_refused_when_set() -> None:
    stock = LoraConfig().to_dict()
    assert set(stock) >= READ - {"peft_type"}
    assert set(stock) >= HARMLESS - {"runtime_config", "auto_mapping"}
    set_by_default = {key for key, value in stock.items() if value} - {"bias"}
    assert set_by_default <= READ | HARMLESS, "plain adapters of stock PEFT would be refused"
