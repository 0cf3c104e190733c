"""Which changes of a spec change the base key, and which must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pharos.plan.base_key import base_key

PINNED = "0123abcd"


@pytest.mark.parametrize(
    "change",
    [
        {"base": "other/model"},
        {"revision": PINNED},
        {"data": {"max_length": 128}},
        {"lora": {"target_modules": ["q_proj"]}},
        {"train": {"micro_batch_size": 4}},
        {"train": {"dtype": "bfloat16"}},
        {"train": {"activation_checkpointing": True}},
    ],
)
def test_a_change_of_the_frozen_computation_changes_the_key(make_spec, tiny_base, rows, change) -> None:
    assert base_key(make_spec(**change), tiny_base, rows) != base_key(make_spec(), tiny_base, rows)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"lora": {"r": 64, "lora_dropout": 0.1}},
        {"optim": {"learning_rate": 1e-3}},
        {"train": {"batch_size": 16, "seed": 3, "data_seed": 4}},
        {"pool": {"workers": 8}},
        {"search": {"num_trials": 3}},
        {"storage": "elsewhere"},
    ],
)
def test_what_lies_outside_the_base_does_not_change_the_key(make_spec, tiny_base, rows, change) -> None:
    assert base_key(make_spec(**change), tiny_base, rows) == base_key(make_spec(), tiny_base, rows)


def test_other_weights_tokenizer_or_rows_change_the_key(make_spec, tiny_base, rows) -> None:
    keys = {
        base_key(make_spec(), tiny_base, rows),
        base_key(make_spec(), replace(tiny_base, digest="other"), rows),
        base_key(make_spec(), replace(tiny_base, tokenizer_digest="other"), rows),
        base_key(make_spec(), tiny_base, replace(rows, digest="other")),
    }
    assert len(keys) == 4
    assert all(len(key) == 12 for key in keys)
