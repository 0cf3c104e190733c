"""Weights are shares of an epoch, and which rows are repeated or left out follows from their content."""

from __future__ import annotations

import numpy as np
import pytest

from pharos.data.mixing import mixed_order, mixture

DRAW = np.random.default_rng(0)
PARTS = np.repeat([0, 1, 2], [100, 700, 200]).astype(np.uint16)
DIGESTS = DRAW.integers(0, 2**64, 1000, dtype=np.uint64)


@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 1, 1), (0.01, 10, 3), (1, 7, 2)])
def test_an_epoch_is_as_long_as_all_rows_and_holds_the_shares(weights: tuple[float, ...]) -> None:
    order = mixed_order(PARTS, DIGESTS, weights)
    assert len(order) == 1000
    counts = np.bincount(PARTS[order], minlength=3)
    assert counts == pytest.approx(1000 * np.array(weights) / sum(weights), abs=1)


def test_rows_of_one_source_differ_by_one_copy_at_most() -> None:
    copies = np.bincount(mixed_order(PARTS, DIGESTS, (5, 3, 1)), minlength=1000)
    for part in range(3):
        assert np.ptp(copies[part == PARTS]) <= 1


def test_weights_like_the_sizes_take_every_row_once() -> None:
    assert mixed_order(PARTS, DIGESTS, (1, 7, 2)).tolist() == list(range(1000))


def test_the_choice_follows_the_content_and_not_the_place() -> None:
    shuffled = DRAW.permutation(1000)
    first = np.bincount(mixed_order(PARTS, DIGESTS, (5, 3, 1)), minlength=1000)
    second = np.bincount(mixed_order(PARTS[shuffled], DIGESTS[shuffled], (5, 3, 1)), minlength=1000)
    assert second.tolist() == first[shuffled].tolist()


def test_a_source_without_rows_leaves_its_share_to_the_others() -> None:
    order = mixed_order(PARTS, DIGESTS, (1, 1, 1, 5))
    assert np.bincount(PARTS[order]) == pytest.approx(1000 / 3, abs=1)


def test_the_mixture_is_said_in_words() -> None:
    order = mixed_order(PARTS, DIGESTS, (1, 1, 0.5))
    assert mixture(PARTS, order, ("a.jsonl", "b", "c")) == (
        "a.jsonl 40% (each row 4.00 times), b 40% (each row 0.57 times), c 20% (each row 1.00 times)"
    )
