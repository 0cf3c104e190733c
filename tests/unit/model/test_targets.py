"""The choice of target modules, against stock PEFT's."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.unit.model.conftest import MakeBase
from torch import nn
from transformers import AutoModelForCausalLM

from pharos.errors import BaseModelError
from pharos.model.targets import target_modules

OPT = {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 16}  # has Linear modules outside its layers


@pytest.mark.parametrize("config", [{}, {"tie_word_embeddings": True}, {"model_type": "qwen2"}, OPT])
@pytest.mark.parametrize("choice", ["all-linear", ["q_proj", "v_proj"], ["layers.1.self_attn.q_proj", "k_proj"]])
def test_the_choice_is_that_of_stock_peft(
    make_base: MakeBase, config: dict[str, object], choice: str | list[str]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_base(**config))
    chosen = target_modules(model, choice)
    peft_model = get_peft_model(model, LoraConfig(target_modules=choice, task_type="CAUSAL_LM"))

    assert set(chosen) == set(peft_model.base_model.targeted_module_names)
    for name, (d_in, d_out) in chosen.items():
        layer = peft_model.base_model.model.get_submodule(name)
        assert layer.lora_A["default"].weight.shape == (8, d_in)
        assert layer.lora_B["default"].weight.shape == (d_out, 8)


def test_the_order_is_the_models(make_base: MakeBase) -> None:
    names = list(target_modules(AutoModelForCausalLM.from_pretrained(make_base()), "all-linear"))
    assert [name.rsplit(".", 1)[-1] for name in names[:7]] == [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ]
    assert "lm_head" not in names


def test_sizes_survive_the_partitioning_of_parameters(make_base: MakeBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_base())
    whole = target_modules(model, "all-linear")
    for parameter in model.parameters():  # as DeepSpeed ZeRO-3 leaves them between uses
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    assert target_modules(model, "all-linear") == whole


@pytest.mark.parametrize("choice", [["lm_head"], ["q_proj", "W_pack"]])
def test_a_choice_that_is_no_target_is_refused(make_base: MakeBase, choice: list[str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_base())
    with pytest.raises(BaseModelError, match=rf"target_modules={choice[-1]} names no Linear module"):
        target_modules(model, choice)


def test_a_model_without_linear_modules_is_refused() -> None:
    with pytest.raises(BaseModelError, match=r"no Linear module that could carry an adapter"):
        target_modules(nn.Sequential(nn.Embedding(4, 4)), "all-linear")
