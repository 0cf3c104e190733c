"""A round says what it did: parts of its clocks, tokens with and without pads, bytes; and measuring changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from equality_pools import MIXED, Rows, pool_of, settings
from torch import nn

from pharos.plan.exchange import Admit, Evict, Orders, RoundReport
from pharos.train.group import SingleProcess
from pharos.train.loop import run_pool


def test_a_round_says_what_it_did(llama_fp32: nn.Module, rows: Rows, tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    reports: list[RoundReport] = []
    clocks: list[int] = []

    def exchange(report: RoundReport) -> Orders:
        reports.append(report)
        if len(reports) == 1:
            return Orders(admit=(Admit(seat=0, trial=MIXED[0]), Admit(seat=1, trial=MIXED[1])))
        if len(reports) < 4:
            return Orders()
        return Orders(evict=(Evict(seat=0, number=MIXED[0].number), Evict(seat=1, number=MIXED[1].number)), close=True)

    group = SingleProcess(device=torch.device("cpu"))
    pool = pool_of(llama_fp32, rows, chosen)
    run_pool(settings=chosen, pool=pool, group=group, exchange=exchange, on_clock=lambda: clocks.append(1))

    assert len(clocks) == sum(report.clocks for report in reports)
    for report in reports[1:]:
        times = report.times
        assert min(times.forward_s, times.backward_s, times.optimizer_s) > 0
        assert times.gather_s == 0, "a base that is not sharded gathers nothing"
        assert times.forward_s + times.backward_s + times.optimizer_s < times.clocks_s
        assert report.num_tokens < report.num_row_tokens < report.num_padded_tokens
        [memory] = report.memory
        assert memory.base == sum(parameter.nbytes for parameter in llama_fp32.parameters())
        assert memory.seats == 4 * pool.bank.values_KP.nbytes
        assert memory.host > memory.base + memory.seats
        written = [file for file in tmp_path.rglob("*") if file.is_file() and "step" in file.parent.name]
    assert reports[-1].checkpoint_bytes == pytest.approx(sum(file.stat().st_size for file in written), rel=1)
    assert reports[-1].checkpoint_bytes > 0
