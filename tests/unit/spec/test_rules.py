"""Rules about several fields, and domains: what works passes, what cannot is named."""

from __future__ import annotations

import re

import pytest

from pharos.errors import SpecError
from pharos.plan.hyperparameters import Hyperparameters
from pharos.spec.fields import searchable_fields, spec_fields
from pharos.spec.model import (
    DERIVED_FIELDS,
    Choice,
    LogUniform,
    LoraSpec,
    OneMinusLogUniform,
    OptimSpec,
    Ordered,
    TrainSpec,
    Uniform,
)
from pharos.spec.space import domain_bounds, domain_kind, domain_problem, domain_values, example_domain, num_points

HUB = "name: hub\nbase: owner/model\ndata: {train: rows.jsonl}\n"
COMMIT = "5f0b02c75b57c5855da9ae460ce51323ea669d8a"


def test_batch_sizes_are_refused_exactly_when_micro_batches_cannot_make_them(load):
    for batch_size in range(1, 20):
        for micro in range(1, 20):
            lines = f"train: {{batch_size: {batch_size}, micro_batch_size: {micro}}}"
            if batch_size % micro == 0:
                assert load(lines).train.batch_size == batch_size
                continue
            with pytest.raises(SpecError, match=f"train.batch_size={batch_size} ") as caught:
                load(lines)
            nearest = caught.value.message.partition("Nearest: ")[2]
            suggested = [int(number) for number in re.findall(r"\d+", nearest)]
            if batch_size > micro:
                assert all(value % micro == 0 and abs(value - batch_size) < micro for value in suggested)
                assert suggested[0] < batch_size < suggested[1]
            else:
                assert suggested == [micro, batch_size]


@pytest.mark.parametrize("searched", [4, 12, 20])
def test_a_searched_batch_size_is_checked_like_the_own_one(load, searched):
    space = f"search: {{num_trials: 2, space: {{train.batch_size: {{choice: [8, {searched}]}}}}}}"
    with pytest.raises(SpecError, match=f"search.space.train.batch_size holds {searched}, which"):
        load(space)
    assert load(f"{space}\ntrain: {{micro_batch_size: 4}}").search


@pytest.mark.parametrize(
    ("lines", "works"),
    [
        ("", True),
        (f"revision: {COMMIT}", True),
        ("revision: main", True),
        (f"revision: {COMMIT}\ntrust_remote_code: true", True),
        ("trust_remote_code: true", False),
        ("revision: main\ntrust_remote_code: true", False),
        ("revision: 5f0b02c\ntrust_remote_code: true", False),
    ],
)
def test_code_of_the_hub_runs_at_a_pinned_commit_alone(load, lines, works):
    if works:
        assert load(lines, head=HUB).base == "owner/model"
    else:
        with pytest.raises(SpecError, match="trust_remote_code=true runs code from the hub"):
            load(lines, head=HUB)


@pytest.mark.parametrize(
    ("optim", "space", "works"),
    [
        ("{lr_scheduler_type: constant}", "", True),
        ("{lr_scheduler_type: constant, warmup_ratio: 0.1}", "", False),
        ("{lr_scheduler_type: constant_with_warmup, warmup_ratio: 0.1}", "optim.warmup_ratio: {uniform: [0, 1]}", True),
        ("{lr_scheduler_type: constant}", "optim.warmup_ratio: {uniform: [0, 0.1]}", False),
        (
            "{lr_scheduler_type: constant}",
            "{optim.warmup_ratio: {uniform: [0, 0.1]}, optim.lr_scheduler_type: {choice: [constant, linear]}}",
            True,
        ),
    ],
)
def test_warmup_needs_a_schedule_that_knows_it(load, optim, space, works):
    space = space if space.startswith("{") else f"{{{space}}}"
    lines = f"optim: {optim}\n" + (f"search: {{space: {space}}}" if space != "{}" else "")
    if works:
        assert load(lines).optim.lr_scheduler_type.startswith("constant")
    else:
        with pytest.raises(SpecError, match="constant ignores warmup. Use constant_with_warmup"):
            load(lines)


@pytest.mark.parametrize(("num_trials", "ranks", "works"), [(3, "[4, 8, 16]", True), (4, "[4, 8, 16]", False)])
def test_a_small_space_bounds_the_trials_with_the_baseline_in_it(load, num_trials, ranks, works):
    lines = f"search: {{num_trials: {num_trials}, space: {{lora.r: {{ordered: {ranks}}}}}}}"
    if works:
        assert load(lines).search.num_trials == num_trials
    else:
        with pytest.raises(SpecError, match="only 3 combinations, the baseline among them. Set it to 3"):
            load(lines)


def test_a_baseline_outside_the_space_is_one_more_trial(load):
    lines = (
        "search: {{num_trials: {}, space: {{lora.r: {{ordered: [2, 4, 16]}}, lora.alpha_over_r: {{choice: [1, 2]}}}}}}"
    )
    assert load(lines.format(7)).search.num_trials == 7
    with pytest.raises(SpecError, match="only 6 combinations and the baseline beside them. Set it to 7"):
        load(lines.format(8))


@pytest.mark.parametrize("num_trials", [1, 1000])
def test_a_continuous_space_takes_any_number_of_trials(load, num_trials):
    lines = f"search: {{num_trials: {num_trials}, space: {{optim.learning_rate: {{log_uniform: [1e-5, 1e-3]}}}}}}"
    assert load(lines).search.num_trials == num_trials


def test_eval_without_test_is_fine_and_built_in_rows_bring_both(load):
    head = "name: rows\nbase: builtin:tiny\n"
    assert load("data: {train: [a.jsonl, b.jsonl], eval: c.jsonl}", head=head).data.test is None
    for name in ("eval", "test"):
        with pytest.raises(SpecError, match=f"data.{name} cannot be given with data.train=builtin:docker-commands"):
            load(f"data: {{train: builtin:docker-commands, {name}: c.jsonl}}", head=head)


def test_one_file_in_two_sets_is_refused_for_every_pair(load):
    head = "name: rows\nbase: builtin:tiny\n"
    for first, second in (("train", "eval"), ("train", "test"), ("eval", "test")):
        files = {"train": "a.jsonl", "eval": "b.jsonl", "test": "c.jsonl"}
        files[second] = files[first]
        with pytest.raises(SpecError, match=f"data.{second} holds {files[first]}, and so does data.{first}"):
            load("data: {" + ", ".join(f"{name}: {file}" for name, file in files.items()) + "}", head=head)


def test_searchable_fields_are_exactly_what_one_trial_may_choose():
    names = {key.split(".")[1] for key in searchable_fields() if key not in DERIVED_FIELDS}
    assert names == set(Hyperparameters.__slots__)


def test_every_field_is_either_searchable_or_refused_with_a_reason():
    for key in spec_fields():
        domain = {"ordered": [1, 2]}
        if key not in searchable_fields():
            assert any(word in domain_problem(key, domain) for word in ("cannot be searched", "is a section")), key


@pytest.mark.parametrize("key", searchable_fields())
def test_the_domain_that_a_message_proposes_works(load, key):
    spec = load(f"search: {{num_trials: 2, space: {{{key}: {example_domain(key)}}}}}")
    assert list(spec.search.space) == [key]


@pytest.mark.parametrize("key", searchable_fields())
@pytest.mark.parametrize("value", [-1, 0, 0.5, 1, 1.0, 2, True, "linear", None, [1], float("nan"), float("inf")])
def test_a_domain_takes_exactly_the_values_that_the_field_takes(load, key, value):
    if key in DERIVED_FIELDS:
        own = domain_problem("lora.lora_alpha", {"choice": [3, value]}) is None
    else:
        section, name = key.split(".")
        own = _loads(load, section, name, value) and value is not None
    other = next(
        v for v in (3, 0.25, False, "cosine") if domain_problem(key, {"choice": [v, v]}).endswith("Remove one.")
    )
    assert (domain_problem(key, {"choice": [other, value]}) is None) == own


def _loads(load, section, name, value):
    try:
        {"lora": LoraSpec, "optim": OptimSpec, "train": TrainSpec}[section].model_validate({name: value})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("kind", ["uniform", "log_uniform", "one_minus_log_uniform"])
def test_ends_of_a_continuous_domain_must_ascend_within_its_range(kind):
    ends = [0.0, 0.1, 0.5, 0.9]
    for low in ends:
        for high in ends:
            works = low < high and (kind == "uniform" or low > 0)
            assert (domain_problem("optim.adam_beta1", {kind: [low, high]}) is None) == works, (kind, low, high)


def test_a_domain_says_its_kind_its_values_and_its_ends():
    ordered, choice = Ordered(ordered=[1, 2]), Choice(choice=["linear", "cosine", "constant"])
    ends = [0.25, 0.5]
    assert [domain_kind(each) for each in (ordered, choice)] == ["ordered", "choice"]
    assert (domain_values(ordered), domain_bounds(ordered)) == ((1, 2), None)
    for domain in (Uniform(uniform=ends), LogUniform(log_uniform=ends), OneMinusLogUniform(one_minus_log_uniform=ends)):
        assert domain_kind(domain) in ("uniform", "log_uniform", "one_minus_log_uniform")
        assert (domain_values(domain), domain_bounds(domain)) == (None, (0.25, 0.5))
    assert num_points({"lora.r": ordered, "optim.lr_scheduler_type": choice}) == 6
    assert num_points({"lora.r": ordered, "optim.weight_decay": Uniform(uniform=ends)}) is None
