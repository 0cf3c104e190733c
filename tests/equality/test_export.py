"""A checkpoint is a PEFT adapter: stock PeftModel.from_pretrained gives the logits that the pool computes."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from equality_pools import MIXED, VOCAB_SIZE, Rows, pool_of, settings, train
from peft import PeftModel
from torch import nn

from pharos.model.adapter_bank import Visitor
from pharos.model.adapter_files import read_adapter


def test_stock_peft_reads_a_checkpoint_and_gives_the_same_logits(
    phi_fp64: nn.Module, rows: Rows, tmp_path: Path
) -> None:
    runs = train(phi_fp64, rows, MIXED, settings(tmp_path))
    tokens = torch.arange(1, 25).view(2, 12) % VOCAB_SIZE
    chosen = settings(tmp_path)
    pool = pool_of(phi_fp64, rows, chosen)
    untrained = phi_fp64(input_ids=tokens).logits
    for run in runs.values():
        adapter = read_adapter(run.checkpoint)
        stock = PeftModel.from_pretrained(copy.deepcopy(phi_fp64), run.checkpoint, autocast_adapter_dtype=False)
        visitor = Visitor(tensors=adapter.tensors, r=adapter.r, scaling=adapter.scaling)
        with torch.no_grad(), pool.bank.visitors([visitor]), pool.bank.active([0]):
            ours = pool.base.module(input_ids=tokens).logits
        expected = stock(input_ids=tokens).logits
        assert (ours - expected).abs().max() < 1e-12
        assert (ours - untrained).abs().max() > 1e-2  # it has learned something
