"""The search: numbers, what Optuna hears, and what a resume asks again."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState as OptunaState

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.ledger import Ledger
from pharos.plan.trial import TrialState
from pharos.spec.model import SweepSpec
from pharos.sweep.search import SweepSearch
from pharos.sweep.study import distribution, to_raw, to_value

SPACE = {
    "lora.r": {"ordered": [2, 4, 8, 16]},
    "lora.alpha_over_r": {"ordered": [1, 2, 4]},
    "optim.learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "optim.adam_beta2": {"one_minus_log_uniform": [0.9, 0.9999]},
}


def a_spec(**changes: object) -> SweepSpec:
    fields = {
        "name": "a",
        "base": "builtin:tiny",
        "data": {"train": "builtin:docker-commands"},
        "lora": {"r": 8, "lora_alpha": 16},
        "train": {"max_steps": 40},
        "search": {"space": SPACE, "num_trials": 6, "num_startup_trials": 2},
    }
    return SweepSpec.model_validate(fields | changes)


def a_result(score: float, state: TrialState = TrialState.COMPLETED, clocks: int = 40) -> dict:
    return {"eval_loss": score, "score": score, "clocks": clocks, "step": clocks, "state": str(state), "done": True}


def asked_of(search: SweepSearch, count: int) -> list[dict]:
    return [search.suggest(f"id{k}") for k in range(count)]


def test_trial_0_is_the_baseline_and_numbers_follow_each_other() -> None:
    suggestions = asked_of(SweepSearch(a_spec(), Ledger(), num_trials=3), 3)
    assert [suggestion["number"] for suggestion in suggestions] == [0, 1, 2]
    assert suggestions[0]["params"] == pytest.approx(
        {"lora.r": 8, "lora.alpha_over_r": 2, "optim.learning_rate": 2e-4, "optim.adam_beta2": 0.999}
    )
    for suggestion in suggestions[1:]:
        assert suggestion["params"]["lora.r"] in (2, 4, 8, 16)
        assert 0.9 <= suggestion["params"]["optim.adam_beta2"] <= 0.9999


def test_it_says_when_there_is_nothing_left_to_suggest() -> None:
    search = SweepSearch(a_spec(), Ledger(), num_trials=1)
    assert isinstance(search.suggest("a"), dict)
    assert search.suggest("b") == search.FINISHED


def test_a_baseline_outside_the_space_runs_but_is_not_told_to_optuna() -> None:
    spec = a_spec(lora={"r": 1, "lora_alpha": 32})
    search = SweepSearch(spec, Ledger(), num_trials=2)
    assert search.suggest("a")["params"]["lora.r"] == 1
    search.on_trial_complete("a", a_result(1.0))
    assert search.study.trials == []
    search.suggest("b")
    assert len(search.study.trials) == 1


@pytest.mark.parametrize(
    ("state", "told", "value", "num_intermediates"),
    [
        (TrialState.COMPLETED, OptunaState.COMPLETE, 0.5, 2),
        (TrialState.PRUNED, OptunaState.PRUNED, 0.5, 2),
        (TrialState.STOPPED, OptunaState.PRUNED, 0.5, 2),
        (TrialState.DIVERGED, OptunaState.PRUNED, None, 0),
        (TrialState.FAILED, OptunaState.FAIL, None, 2),
    ],
)
def test_optuna_hears_how_a_trial_ended(
    state: TrialState, told: OptunaState, value: float | None, num_intermediates: int
) -> None:
    search = SweepSearch(a_spec(), Ledger(), num_trials=2)
    search.suggest("a")
    search.on_trial_result("a", a_result(0.9, TrialState.RUNNING, clocks=5) | {"done": False})
    search.on_trial_complete("a", a_result(0.5, state, clocks=10))
    (trial,) = search.study.trials
    assert (trial.state, trial.value, len(trial.intermediate_values)) == (told, value, num_intermediates)


def test_a_proxy_that_died_is_a_failure_and_a_nan_is_no_intermediate() -> None:
    search = SweepSearch(a_spec(), Ledger(), num_trials=2)
    search.suggest("a")
    search.on_trial_result("a", a_result(math.nan, TrialState.RUNNING, clocks=5))
    search.on_trial_complete("a", None, error=True)
    (trial,) = search.study.trials
    assert trial.state == OptunaState.FAIL
    assert trial.intermediate_values == {}


def test_the_same_seed_asks_the_same_and_another_seed_does_not() -> None:
    first, again = (asked_of(SweepSearch(a_spec(), Ledger(), num_trials=4), 4) for _ in range(2))
    assert first == again
    spec = a_spec(search={"space": SPACE, "seed": 1})
    assert asked_of(SweepSearch(spec, Ledger(), num_trials=4), 4)[1:] != first[1:]


def test_a_resumed_search_hands_out_the_unfinished_under_their_numbers_and_knows_the_finished() -> None:
    spec = a_spec()
    first = SweepSearch(spec, Ledger(), num_trials=6)
    suggestions = asked_of(first, 4)
    first.on_trial_complete("id0", a_result(0.7))
    first.on_trial_complete("id2", a_result(0.6, TrialState.DIVERGED))
    ledger = Ledger.of(
        log_of(spec, suggestions, ended={0: (TrialState.COMPLETED, 0.7), 2: (TrialState.DIVERGED, None)})
    )

    resumed = SweepSearch(spec, ledger, num_trials=6)
    assert {t.user_attrs["number"]: t.state for t in resumed.study.trials} == {
        0: OptunaState.COMPLETE,
        2: OptunaState.PRUNED,
    }
    handed_out = asked_of(resumed, 4)
    assert [suggestion["number"] for suggestion in handed_out] == [1, 3, 4, 5]
    for now, before in zip(handed_out, (suggestions[1], suggestions[3]), strict=False):
        assert now["params"] == pytest.approx(before["params"])
    assert resumed.suggest("more") == resumed.FINISHED


def test_every_domain_maps_to_optuna_and_back() -> None:
    domains = a_spec().search.space
    for value, field in [(16, "lora.r"), (4, "lora.alpha_over_r"), (3e-4, "optim.learning_rate")]:
        assert to_value(domains[field], to_raw(domains[field], value)) == value
    beta2 = distribution(domains["optim.adam_beta2"])
    assert (beta2.log, beta2.low, beta2.high) == (True, pytest.approx(1e-4), pytest.approx(0.1))
    assert to_raw(domains["lora.r"], 3) is None


def log_of(spec: SweepSpec, suggestions: list[dict], *, ended: dict) -> list[ev.Event]:
    events: list[ev.Event] = []
    for suggestion in suggestions:
        trial = trial_plan(spec, suggestion["number"], suggestion["params"], num_train_items=100)
        events.append(ev.TrialCreated(number=trial.number, trial=trial.to_json()))
    for number, (state, score) in ended.items():
        events.append(ev.TrialEnded(number=number, state=str(state), reason="", score=score, step=40))
    return events
