"""Adapters written here load in stock PEFT, and what stock PEFT writes is read here; the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.unit.model.conftest import MakeAdapter, MakeBase, stock_peft
from transformers import AutoModelForCausalLM

from pharos.errors import HandOverError
from pharos.model.adapter_files import PLAIN_LORA, AdapterTensors, read_adapter, write_adapter

TOKENS = torch.tensor([[5, 17, 3, 90, 44]])
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


def write(directory: Path, adapter: AdapterTensors, **changes: Any) -> None:
    values = {
        "tensors": adapter.tensors,
        "r": adapter.r,
        "lora_alpha": adapter.lora_alpha,
        "lora_dropout": adapter.lora_dropout,
        "use_rslora": adapter.use_rslora,
        "target_modules": list(adapter.tensors),
        "base_name": "org/base",
    }
    write_adapter(directory, **values | changes)


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    "config", [{}, {"use_rslora": True, "lora_alpha": 3}, {"r": 1}, {"target_modules": ["q_proj"], "lora_dropout": 0.1}]
)
def test_a_written_adapter_gives_the_same_logits_in_stock_peft(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, config: dict[str, object]
) -> None:
    base = make_base()
    original = make_adapter(base, **config)
    write(tmp_path / "written", read_adapter(original))

    expected = stock_peft(base, original)(TOKENS).logits
    assert torch.equal(stock_peft(base, tmp_path / "written")(TOKENS).logits, expected)
    assert not torch.allclose(AutoModelForCausalLM.from_pretrained(base)(TOKENS).logits, expected, atol=1e-3)


def test_what_is_written_is_read_back(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    original = read_adapter(make_adapter(make_base(), r=3, lora_alpha=2.5, lora_dropout=0.25, use_rslora=True))
    write(tmp_path / "written", original, revision="abc")
    again = read_adapter(tmp_path / "written")

    assert (again.r, again.lora_alpha, again.lora_dropout, again.use_rslora) == (3, 2.5, 0.25, True)
    assert (again.base_name, again.revision) == ("org/base", "abc")
    assert again.scaling == pytest.approx(2.5 / 3**0.5)
    assert again.tensors.keys() == original.tensors.keys()
    for module, (a, b) in again.tensors.items():
        assert torch.equal(a, original.tensors[module][0])
        assert torch.equal(b, original.tensors[module][1])
    assert sorted(file.name for file in (tmp_path / "written").iterdir()) == [
        *("adapter_config.json", "adapter_model.safetensors")
    ]


def test_modules_are_named_by_suffixes_only_where_these_choose_the_same_ones(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    adapter = read_adapter(make_adapter(base, target_modules=["q_proj", "v_proj"]))
    everything = list(read_adapter(make_adapter(base, "all")).tensors)

    def named(tensors: Pairs, **changes: Any) -> list[str]:
        write(tmp_path / "written", adapter, tensors=tensors, target_modules=list(tensors), **changes)
        return json.loads((tmp_path / "written" / "adapter_config.json").read_text())["target_modules"]

    first_layer = {name: pair for name, pair in adapter.tensors.items() if ".0." in name}
    assert named(adapter.tensors, model_modules=everything) == ["q_proj", "v_proj"]
    assert named(adapter.tensors) == sorted(adapter.tensors)
    assert named(first_layer, model_modules=everything) == sorted(first_layer)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "written")
    assert set(model.base_model.targeted_module_names) == set(first_layer)


def test_tensors_in_bfloat16_stay_bfloat16(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    adapter = read_adapter(make_adapter(make_base()))
    write(
        tmp_path / "written",
        adapter,
        tensors={m: (a.bfloat16(), b.bfloat16()) for m, (a, b) in adapter.tensors.items()},
    )
    assert {a.dtype for a, _ in read_adapter(tmp_path / "written").tensors.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.empty(0), torch.zeros(8, 4), r"tensors of layer are empty: A \(0,\), B \(8, 4\)"),
        (torch.zeros(4, 8), torch.empty(8, 0), r"are empty"),
        (torch.zeros(5, 8), torch.zeros(8, 5), r"do not have rank r=4: A \(5, 8\), B \(8, 5\)"),
        (torch.zeros(4, 8), torch.zeros(4, 8), r"do not have rank r=4"),
        (torch.zeros(4), torch.zeros(8, 4), r"do not have rank r=4"),
    ],
)
def test_tensors_of_a_wrong_shape_are_neither_written_nor_read(
    tmp_path: Path, a: torch.Tensor, b: torch.Tensor, message: str
) -> None:
    plain = {"r": 4, "lora_alpha": 4, "lora_dropout": 0.0, "use_rslora": False, "base_name": "base"}
    with pytest.raises(HandOverError, match=message):
        write_adapter(tmp_path / "new", tensors={"layer": (a, b)}, target_modules=["layer"], **plain)
    assert not (tmp_path / "new").exists()

    good = {"layer": (torch.zeros(4, 8), torch.zeros(8, 4))}
    write_adapter(tmp_path, tensors=good, target_modules=["layer"], **plain)
    contents = {"base_model.model.layer.lora_A.weight": a, "base_model.model.layer.lora_B.weight": b}
    save_file(contents, tmp_path / "adapter_model.safetensors")
    with pytest.raises(HandOverError, match=message):
        read_adapter(tmp_path)


def test_target_modules_that_are_not_the_tensors_are_refused(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    adapter = read_adapter(make_adapter(make_base()))
    with pytest.raises(HandOverError, match=r"differ in model.layers.0.mlp.down_proj"):
        write(tmp_path / "new", adapter, target_modules=list(adapter.tensors)[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2}},
        {"modules_to_save": ["lm_head"]},
        {"peft_type": "LOHA"},
    ],
)
def test_more_than_plain_lora_is_refused(
    make_base: MakeBase, make_adapter: MakeAdapter, change: dict[str, object]
) -> None:
    directory = make_adapter(make_base())
    change_json(directory / "adapter_config.json", **change)
    with pytest.raises(HandOverError, match=rf"{next(iter(change))}=.* is more than plain LoRA"):
        read_adapter(directory)


def test_every_setting_of_stock_peft_that_is_refused_is_one_it_knows() -> None:
    stock = LoraConfig().to_dict()
    assert {key: stock[key] for key in PLAIN_LORA} == PLAIN_LORA


def test_broken_adapter_files_are_refused(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    directory = make_adapter(make_base())
    weights = directory / "adapter_model.safetensors"
    whole, contents = weights.read_bytes(), load_file(weights)

    weights.write_bytes(whole[:-1])
    with pytest.raises(HandOverError, match=r"is truncated or no safetensors file"):
        read_adapter(directory)
    save_file({key: tensor for key, tensor in contents.items() if "lora_A" in key}, weights)
    with pytest.raises(HandOverError, match=r"holds A of .* but no B"):
        read_adapter(directory)
    save_file(contents | {"base_model.model.lm_head.weight": torch.zeros(2)}, weights)
    with pytest.raises(HandOverError, match=r"holds base_model.model.lm_head.weight, which is no A or B"):
        read_adapter(directory)
    save_file({}, weights)
    with pytest.raises(HandOverError, match=r"holds no tensors"):
        read_adapter(directory)
    weights.rename(directory / "adapter_model.bin")
    with pytest.raises(HandOverError, match=r"has no adapter_model.safetensors"):
        read_adapter(directory)
    (directory / "adapter_config.json").write_text("[]")
    with pytest.raises(HandOverError, match=r"is no LoRA configuration"):
        read_adapter(directory)
    (directory / "adapter_config.json").unlink()
    with pytest.raises(HandOverError, match=r"is no adapter"):
        read_adapter(directory)


def test_an_adapter_in_training_is_written_detached(make_base: MakeBase, tmp_path: Path) -> None:
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(make_base()), LoraConfig(r=2, target_modules=["q_proj"])
    )
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    pair = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
    plain = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "use_rslora": False, "base_name": "base"}
    write_adapter(tmp_path, tensors={"q": pair}, target_modules=["q"], **plain)
    assert torch.equal(read_adapter(tmp_path).tensors["q"][0], pair[0])
    assert pair[0].requires_grad


def test_an_adapter_that_is_a_slice_of_a_stack_is_written_alone(tmp_path: Path) -> None:
    stack_a, stack_b = torch.randn(3, 4, 8), torch.randn(3, 8, 4)  # seats of a pool
    tensors = {"one": (stack_a[1, :2], stack_b[1, :, :2]), "other": (stack_a[1, :2], stack_b[1, :, :2])}
    plain = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "use_rslora": False, "base_name": "base"}
    write_adapter(tmp_path, tensors=tensors, target_modules=list(tensors), **plain)
    for a, b in read_adapter(tmp_path).tensors.values():
        assert torch.equal(a, stack_a[1, :2])
        assert torch.equal(b, stack_b[1, :, :2])
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 1000
