"""Answers of all seats from one lockstep batch are those that stock PEFT and transformers generate one at a time."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from equality_pools import MIXED, VOCAB_SIZE, Rows, pool_of, settings, train
from peft import PeftModel
from torch import nn
from transformers import GenerationConfig

from pharos.model.adapter_bank import Visitor
from pharos.model.adapter_files import read_adapter
from pharos.plan.pool import GenerationSettings
from pharos.train.generation import greedy_answers
from pharos.train.group import SingleProcess

STOPS = (7, 11, 23, 42)
GENERATION = GenerationSettings(max_rows=4, max_new_tokens=12, stop_ids=STOPS, pad_id=0)
PROMPTS = [[5, 9, 30], [1], [44, 2, 17, 8, 60, 3, 12], [21, 21]]
HOST = SingleProcess(device=torch.device("cpu"))


def alone(model: nn.Module, checkpoint: Path | None) -> list[list[int]]:
    """Each prompt by itself, without padding, by stock `generate`."""
    asked = copy.deepcopy(model)
    if checkpoint is not None:
        asked = PeftModel.from_pretrained(asked, checkpoint, autocast_adapter_dtype=False)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=12, eos_token_id=list(STOPS), pad_token_id=0)
    answers = []
    for prompt in PROMPTS:
        written = asked.generate(input_ids=torch.tensor([prompt]), generation_config=greedy)[0, len(prompt) :].tolist()
        answers.append([token for token in written if token not in STOPS])
    return answers


@pytest.fixture(scope="module")
def checkpoints(llama_fp32: nn.Module, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    trained = train(llama_fp32, rows, MIXED, settings(tmp_path_factory.mktemp("trials")))
    return [run.checkpoint for run in trained.values()]


def test_every_seat_answers_as_its_adapter_alone_would(
    llama_fp32: nn.Module, rows: Rows, checkpoints: list[Path], tmp_path: Path
) -> None:
    pool = pool_of(llama_fp32, rows, settings(tmp_path))
    adapters = [read_adapter(checkpoint) for checkpoint in checkpoints]
    visitors = [Visitor(tensors=one.tensors, r=one.r, scaling=one.scaling) for one in adapters]
    with pool.bank.visitors(visitors):
        together = greedy_answers(PROMPTS, [0, 1, 2, 3], GENERATION, base=pool.base, bank=pool.bank, group=HOST)
        some = greedy_answers(PROMPTS, [1, 3], GENERATION, base=pool.base, bank=pool.bank, group=HOST)
    expected = [alone(llama_fp32, checkpoint) for checkpoint in checkpoints]
    assert together == expected
    assert some == [expected[1], expected[3]]
    assert len({str(answers) for answers in expected}) == 4, "each adapter has learned something else"
    lengths = {len(answer) for answers in expected for answer in answers}
    assert max(lengths) == 12
    assert min(lengths) < 12, "some answers end by themselves"


def test_the_bare_base_answers_as_itself(llama_fp32: nn.Module, rows: Rows, tmp_path: Path) -> None:
    pool = pool_of(llama_fp32, rows, settings(tmp_path))
    with pool.bank.visitors([None]):
        [answers] = greedy_answers(PROMPTS, [0], GENERATION, base=pool.base, bank=pool.bank, group=HOST)
    assert answers == alone(llama_fp32, None)


@pytest.mark.parametrize(("prompts", "seats", "expected"), [(PROMPTS, [], []), ([], [0, 2], [[], []])])
def test_a_rank_with_nothing_to_ask_keeps_up_with_one_row(
    llama_fp32: nn.Module,
    rows: Rows,
    tmp_path: Path,
    prompts: list[list[int]],
    seats: list[int],
    expected: list[list[list[int]]],
) -> None:
    """Alone it stops at once; beside ranks that go on, `all_reduce` keeps it going."""
    pool = pool_of(llama_fp32, rows, settings(tmp_path))
    shapes = []
    pool.base.module.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    assert greedy_answers(prompts, seats, GENERATION, base=pool.base, bank=pool.bank, group=HOST) == expected
    assert shapes == [(1, 1)]
    assert max(max(prompt) for prompt in PROMPTS) < VOCAB_SIZE
