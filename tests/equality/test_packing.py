"""Rows that share a sequence train as rows apart, and a base that cannot keep them apart is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from equality_pools import MIXED, WITH_DROPOUT, Rows, distance, pool_of, settings, token_rows, train
from equality_reference import train_reference
from tests.support.token_rows import packed_rows
from torch import nn
from transformers import BloomConfig, BloomForCausalLM

from pharos.errors import BaseModelError

PACK_TOKENS = 40


@pytest.fixture(scope="module")
def packed(rows: Rows) -> Rows:
    """The rows of the other equality tests and as many again, two to eight in a pack; eval and test as they are."""
    return rows | {"train": packed_rows(token_rows(58, seed=1), PACK_TOKENS)}


def test_packed_rows_train_as_rows_apart_by_stock_peft_in_double_precision(
    phi_fp64: nn.Module, packed: Rows, tmp_path: Path
) -> None:
    assert 2 < len(token_rows(58, seed=1)) / len(packed["train"]) < 8
    runs = train(phi_fp64, packed, MIXED, settings(tmp_path))
    for plan in MIXED:
        run, reference = runs[plan.number], train_reference(phi_fp64, packed["train"], plan)
        assert [step.num_tokens for step in run.steps] == reference.token_counts
        assert np.abs(np.array(run.losses) - reference.losses).max() < 1e-12, plan
        assert np.abs(np.array(run.norms) - reference.norms).max() < 1e-12, plan
        assert max(float((run.adapter[name] - t).abs().max()) for name, t in reference.tensors.items()) < 1e-12, plan


def test_packed_rows_train_as_rows_apart_in_single_precision(
    llama_fp32: nn.Module, packed: Rows, tmp_path: Path
) -> None:
    runs = train(llama_fp32, packed, MIXED, settings(tmp_path))
    for plan in MIXED:
        reference = train_reference(llama_fp32, packed["train"], plan)
        assert np.abs(np.array(runs[plan.number].losses) - reference.losses).max() < 1e-5, plan


def test_a_trial_on_packs_is_the_same_beside_neighbours_and_alone(
    phi_fp64: nn.Module, packed: Rows, tmp_path: Path
) -> None:
    together = train(phi_fp64, packed, WITH_DROPOUT, settings(tmp_path / "together"))
    for plan in WITH_DROPOUT:
        chosen = settings(tmp_path / str(plan.number), seats_per_worker=1, r_max=plan.hyperparameters.r)
        assert distance(together[plan.number], train(phi_fp64, packed, [plan], chosen)[plan.number]) < 1e-12


class Deaf(nn.Module):
    """A model that takes positions and does not heed them, as one with a state that runs through its tokens would."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> object:
        return self.model(input_ids=input_ids, use_cache=use_cache)

    def get_output_embeddings(self) -> nn.Module:
        return self.model.get_output_embeddings()

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype


def test_a_base_whose_rows_would_see_each_other_is_refused(phi_fp64: nn.Module, packed: Rows, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="Deaf lets a token see other rows of its sequence.*data.packing to false"):
        pool_of(Deaf(phi_fp64), packed, settings(tmp_path))


def test_a_base_that_takes_no_positions_is_refused(packed: Rows, tmp_path: Path) -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2)).eval()
    with pytest.raises(BaseModelError, match="BloomForCausalLM takes no position_ids"):
        pool_of(bloom, packed, replace(settings(tmp_path)))
