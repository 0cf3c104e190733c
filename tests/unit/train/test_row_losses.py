"""The loss of each row is what transformers' own loss says of that row alone, whatever shares its pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.token_rows import packed_rows, rows_in_memory
from transformers import LlamaConfig, LlamaForCausalLM

from pharos.data.store import TokenRows
from pharos.train.row_losses import row_losses

VOCABULARY = 50


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def rows() -> TokenRows:
    """Twelve rows of 1 to 20 tokens in no order, half of the tokens trained, the first ones of some rows too."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.array([1, 20, 3, 7, 7, 12, 2, 19, 5, 16, 9, 4]))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return rows_in_memory(rng.integers(0, VOCABULARY, offsets[-1]), rng.random(offsets[-1]) < 0.5, offsets)


def reference(model: LlamaForCausalLM, rows: TokenRows) -> tuple[list[float], list[int], list[int]]:
    """Row by row, with the loss that transformers computes from labels."""
    sums, counts, right = [], [], []
    for index in range(len(rows)):
        tokens, trained = rows.row(index)
        place = slice(rows.offsets[index], rows.offsets[index + 1])
        wanted = tokens if rows.targets is None else rows.targets[place]
        labels = torch.tensor(np.where(trained, wanted, -100).astype(np.int64))[None]
        count = int((labels[0, 1:] != -100).sum())
        with torch.no_grad():
            answer = model(input_ids=torch.tensor(tokens.astype(np.int64))[None], labels=labels)
        sums.append(float(answer.loss) * count if count else 0.0)
        counts.append(count)
        right.append(int((answer.logits[0, :-1].argmax(-1) == labels[0, 1:]).sum()))
    return sums, counts, right


@pytest.mark.parametrize("batch_tokens", [1, 30, 4096])
def test_each_row_has_the_loss_that_it_has_alone(model: LlamaForCausalLM, rows: TokenRows, batch_tokens: int) -> None:
    found = row_losses(model, rows, batch_tokens=batch_tokens)
    sums, counts, right = reference(model, rows)
    np.testing.assert_allclose(found.loss_sums, sums, rtol=1e-5, atol=1e-5)
    assert found.num_tokens.tolist() == counts
    assert found.num_right.tolist() == right
    assert sum(right) > 0
    assert found.loss == pytest.approx(sum(sums) / sum(counts), rel=1e-5)
    assert found.accuracy == pytest.approx(sum(right) / sum(counts))


def test_what_is_to_be_predicted_may_differ_from_the_token(model: LlamaForCausalLM, rows: TokenRows) -> None:
    targets = (rows.tokens + 1) % VOCABULARY
    found = row_losses(model, replace(rows, targets=targets.astype(np.int32)))
    sums, _, right = reference(model, replace(rows, targets=targets))
    np.testing.assert_allclose(found.loss_sums, sums, rtol=1e-5, atol=1e-5)
    assert found.num_right.tolist() == right


def test_packed_rows_do_not_see_each_other(model: LlamaForCausalLM, rows: TokenRows) -> None:
    alone, packed = row_losses(model, rows), row_losses(model, packed_rows(rows, 24))
    assert packed.loss_sums.sum() == pytest.approx(alone.loss_sums.sum(), rel=1e-5)
    assert packed.num_tokens.sum() == alone.num_tokens.sum()
    assert len(packed.num_tokens) < len(alone.num_tokens)


def test_progress_is_told_row_by_row_of_all(model: LlamaForCausalLM, rows: TokenRows) -> None:
    told: list[tuple[int, int]] = []
    row_losses(model, rows, batch_tokens=40, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 2
