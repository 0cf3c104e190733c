"""Loading a base: frozen, without dropout, refused where it mixes rows; and a whole pool opened from directories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, OPTConfig, OPTForCausalLM

from pharos.data.store import RowSpill, write_rows
from pharos.errors import BaseModelError
from pharos.plan.exchange import Orders, RoundReport
from pharos.plan.pool import PoolSettings
from pharos.train import frozen_base
from pharos.train.frozen_base import FrozenBase, checkpoint_activations, freeze, load_base
from pharos.train.group import SingleProcess
from pharos.train.loop import run_pool
from pharos.train.open_pool import open_pool

ALONE = SingleProcess(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    directory = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=32, attention_dropout=0.3)).save_pretrained(directory)
    return directory


def load(directory: Path, *, dtype: torch.dtype = torch.float32, recompute: bool = False) -> FrozenBase:
    return load_base(
        directory,
        dtype=dtype,
        sharding="replicate",
        activation_checkpointing=recompute,
        trust_remote_code=False,
        group=ALONE,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_is_frozen_in_the_dtype_that_was_asked_for(llama_dir: Path, dtype: torch.dtype) -> None:
    base = load(llama_dir, dtype=dtype)
    assert {parameter.dtype for parameter in base.module.parameters()} == {dtype}
    assert not any(parameter.requires_grad for parameter in base.module.parameters())
    assert not any(module.training for module in base.module.modules())
    assert base.module.config.attention_dropout == 0.0
    assert base.parameter_bytes_held() == sum(p.numel() for p in base.module.parameters()) * dtype.itemsize


def test_with_recomputation_layers_train_but_drop_nothing(tmp_path: Path) -> None:
    """OPT's layers read their own training flag for dropout, which transformers needs to be on to recompute."""
    sizes = {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = OPTConfig(**sizes, vocab_size=32, word_embed_proj_dim=16, dropout=0.5, layerdrop=0.5)
    OPTForCausalLM(config).save_pretrained(tmp_path)
    tokens = torch.arange(2, 12).view(2, 5)
    plain, recomputing = load(tmp_path).module, load(tmp_path, recompute=True).module
    assert any(module.training for module in recomputing.modules())
    assert torch.equal(recomputing(input_ids=tokens).logits, plain(input_ids=tokens).logits)


def test_a_base_with_batch_norm_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(BaseModelError, match="1 is a BatchNorm1d, which mixes the rows of a batch"):
        freeze(model, Path("base"), activation_checkpointing=False)


def test_a_mixture_of_experts_with_a_loss_over_the_batch_is_refused(tmp_path: Path) -> None:
    MixtralConfig(architectures=["MixtralForCausalLM"]).save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match="an auxiliary loss over the whole batch"):
        load(tmp_path)


def test_recomputation_is_refused_where_the_model_cannot() -> None:
    with pytest.raises(BaseModelError, match=r"train\.activation_checkpointing=true: Sequential of base has no layers"):
        checkpoint_activations(nn.Sequential(nn.Linear(4, 4)), Path("base"))


def test_zero3_settings_keep_no_parameter_whole() -> None:
    zero = frozen_base.zero3_settings(torch.bfloat16, ALONE)["zero_optimization"]
    assert (zero["stage"], zero["stage3_param_persistence_threshold"], zero["overlap_comm"]) == (3, 0, False)


def test_a_pool_opens_from_directories_and_closes_when_told(llama_dir: Path, tmp_path: Path) -> None:
    for split in ("train", "eval", "test"):
        spill = RowSpill(tmp_path / "spill", split)
        spill.add(tokens=np.arange(1, 11, dtype=np.int32), trained=np.array([0, 0, 1, 1, 1] * 2, dtype=np.uint8))
        spill.close()
        write_rows(tmp_path / f"{split}.arrow", spill, np.array([5, 5]), np.array([3, 3]))
    settings = PoolSettings(
        pool="pool-0",
        base_key="key",
        base_dir=str(llama_dir),
        data_dir=str(tmp_path),
        trials_dir=str(tmp_path / "trials"),
        workers=1,
        seats_per_worker=2,
        placement="local",
        sharding="replicate",
        target_modules=("q_proj", "v_proj"),
        r_max=4,
        micro_batch_size=1,
        report_every=2,
        metric="eval_loss",
        metric_scope="best",
        dtype="float32",
        activation_checkpointing=False,
        trust_remote_code=False,
    )
    pool = open_pool(settings, ALONE)
    assert list(pool.bank.targets) == [f"model.layers.{i}.self_attn.{name}_proj" for i in range(2) for name in "qv"]
    reports: list[RoundReport] = []

    def exchange(report: RoundReport) -> Orders:
        reports.append(report)
        return Orders(close=report.round == 2)

    run_pool(settings=settings, pool=pool, group=ALONE, exchange=exchange)
    assert [(report.round, report.clocks, report.seats) for report in reports] == [(0, 0, ()), (1, 0, ()), (2, 0, ())]
