"""The parity check passes what is right and refuses planted mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.model.conftest import MakeAdapter, MakeBase

from pharos.errors import HandOverError
from pharos.model.merge import merge_adapter
from pharos.model.parity import check_parity

ROWS = [[5, 17, 3, 90, 44], [1, 2], [60, 61, 62, 63, 64, 65, 66, 67]]
MODULE = "model.layers.1.self_attn.v_proj.weight"
KINDS = {
    "float32": {},
    "sharded": {"max_shard_size": "20KB"},
    "tied": {"tie_word_embeddings": True},
    "with biases": {"attention_bias": True, "mlp_bias": True},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
}


def shard_of(directory: Path, name: str) -> Path:
    return next(file for file in directory.glob("*.safetensors") if name in load_file(file))


def change_tensor(directory: Path, name: str, value: torch.Tensor) -> None:
    file = shard_of(directory, name)
    save_file(load_file(file) | {name: value}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_merge_passes(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, kind: str) -> None:
    base = make_base(**KINDS[kind])
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    parity = check_parity(base, adapter, tmp_path / "merged", ROWS)
    assert parity.num_rows == 3
    assert parity.scale >= 1.0
    assert parity.max_abs_difference <= parity.bound
    assert (parity.rounding > 0) == kind.endswith("16")
    if not kind.endswith("16"):
        assert parity.bound == pytest.approx(1e-5 * parity.scale)


def test_in_float64_a_right_merge_of_float64_weights_is_exact(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.float64)
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    # Not 1e-12: Llama normalises and takes the softmax in fp32.
    parity = check_parity(base, adapter, tmp_path / "merged", ROWS, dtype=torch.float64, tolerance=1e-6)
    assert parity.rounding == 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mistake", ["doubled", "forgotten", "swapped"])
def test_a_wrong_merge_is_refused(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, kind: str, mistake: str
) -> None:
    base = make_base(**KINDS[kind])
    adapter, merged = make_adapter(base), tmp_path / "merged"
    merge_adapter(base, adapter, merged)
    right = load_file(shard_of(merged, MODULE))[MODULE]
    wrong = {"doubled": 2 * right, "swapped": right.flip(0).contiguous()}
    wrong["forgotten"] = load_file(shard_of(base, MODULE))[MODULE]
    change_tensor(merged, MODULE, wrong[mistake])
    with pytest.raises(HandOverError, match=r"differs from base \+ adapter by \S+ in a logit on 3 rows"):
        check_parity(base, adapter, merged, ROWS)


def test_a_merge_that_is_not_a_number_is_refused(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    adapter, merged = make_adapter(base), tmp_path / "merged"
    merge_adapter(base, adapter, merged)
    change_tensor(merged, "model.norm.weight", torch.full((32,), float("nan")))
    with pytest.raises(HandOverError, match=r"by nan in a logit"):
        check_parity(base, adapter, merged, ROWS)


def test_a_merge_that_is_not_whole_is_refused(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    base = make_base(max_shard_size="20KB")
    adapter, merged = make_adapter(base), tmp_path / "merged"
    merge_adapter(base, adapter, merged)
    shard = shard_of(merged, MODULE)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(HandOverError, match=rf"not whole: {shard} is truncated"):
        check_parity(base, adapter, merged, ROWS)


def test_a_merge_that_lacks_a_weight_is_refused(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    base = make_base()
    adapter, merged = make_adapter(base), tmp_path / "merged"
    merge_adapter(base, adapter, merged)
    tensors = load_file(merged / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HandOverError, match=r"lacks 1 of the model's weights: model.norm.weight"):
        check_parity(base, adapter, merged, ROWS)


def test_a_merge_that_rounding_spoils_is_refused(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.bfloat16)
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    with pytest.raises(HandOverError, match=r"Rounding the merged weights to bfloat16 moves a logit by"):
        check_parity(base, adapter, tmp_path / "merged", ROWS, max_rounding=1e-6)


@pytest.mark.parametrize("rows", [[], [[1, 2], []]])
def test_a_check_without_rows_is_no_check(
    make_base: MakeBase, make_adapter: MakeAdapter, rows: list[list[int]]
) -> None:
    base = make_base()
    with pytest.raises(HandOverError, match=r"needs rows"):
        check_parity(base, make_adapter(base), base, rows)
