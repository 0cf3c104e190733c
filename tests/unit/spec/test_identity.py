"""When two specs are the same, and what is said where they differ."""

from __future__ import annotations

import json

from pharos.spec.identity import MAY_CHANGE, spec_difference, spec_digest, spec_to_json
from pharos.spec.model import SweepSpec

SEARCH = """
search:
  num_trials: 4
  space: {lora.r: {ordered: [2, 4, 8, 16]}, optim.learning_rate: {log_uniform: [1e-5, 1]}}
"""


def test_a_spec_goes_through_json_and_back_unchanged(load):
    spec = load(SEARCH + "register: {model: mine}")
    text = json.dumps(spec_to_json(spec))
    assert SweepSpec.model_validate(json.loads(text)) == spec
    assert json.loads(text)["register"] == {"model": "mine", "enabled": True}


def test_the_digest_is_of_what_is_meant_not_of_how_it_is_written(load):
    one = load("lora: {r: 8, lora_alpha: 8}\noptim: {weight_decay: 0}\n" + SEARCH)
    other = load(SEARCH.replace("1]", "1.0]") + "optim:\n  weight_decay: 0.0\n  learning_rate: 0.0002\n")
    assert spec_digest(one) == spec_digest(other)
    assert spec_difference(spec_to_json(one), spec_to_json(other)) == []
    assert len(spec_digest(one)) == 64


def test_the_digest_changes_with_every_kind_of_change(load):
    changes = (
        "lora.r=4",
        "lora.use_rslora=true",
        "search=null",
        "data.max_length=9",
        "search.space.lora.r={choice: [2, 4]}",
    )
    digests = {spec_digest(load(SEARCH, *overrides)) for overrides in ((), *((change,) for change in changes))}
    assert len(digests) == len(changes) + 1


def test_a_difference_names_the_field_and_both_values(load):
    old = spec_to_json(load(SEARCH))
    new = spec_to_json(
        load(
            SEARCH,
            *("optim.learning_rate=1e-3", "data.max_length=9", "search.num_trials=3", "pool.workers=2"),
            *("search.space.lora.r={ordered: [2, 8]}", "search.space.train.seed={choice: [0, 1]}", "tracking.uri=x"),
        )
    )
    expected = [
        "data.max_length: 1024 -> 9",
        "optim.learning_rate: 0.0002 -> 0.001",
        'search.space.lora.r: {"ordered": [2, 4, 8, 16]} -> {"ordered": [2, 8]}',
        'search.space.train.seed: absent -> {"choice": [0, 1]}',
    ]
    assert spec_difference(old, new, ignore=MAY_CHANGE) == expected
    assert len(spec_difference(old, new)) == len(expected) + 3


def test_what_may_change_is_a_prefix_of_whole_names():
    assert spec_difference(
        {"pool": {"workers": 1}, "poolside": 1}, {"pool": {"workers": 2}, "poolside": 2}, ignore=("pool",)
    ) == ["poolside: 1 -> 2"]
    assert spec_difference({"a": True}, {"a": 1}) == ["a: true -> 1"]


def test_a_search_taken_away_is_one_difference(load):
    [line] = spec_difference(spec_to_json(load(SEARCH)), spec_to_json(load()))
    assert line.startswith("search: {")
    assert line.endswith("-> null")
