"""The importance of searched fields: what it must find, what it must not say, and that it stays light."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.comparison import sweep_of_ledger
from pharos.plan.ledger import Ledger
from pharos.plan.trial import TrialState
from pharos.spec.identity import spec_to_json
from pharos.spec.model import SweepSpec
from pharos.sweep.importance import importance_of

ROOT = Path(__file__).parents[3]
SPACE = {
    "optim.learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "lora.r": {"ordered": [2, 4, 8, 16]},
    "optim.adam_beta2": {"one_minus_log_uniform": [0.9, 0.9999]},
    "optim.lr_scheduler_type": {"choice": ["linear", "cosine"]},
}
SPEC = SweepSpec.model_validate(
    {
        "name": "a",
        "base": "builtin:tiny",
        "data": {"train": "builtin:docker-commands"},
        "train": {"max_steps": 40},
        "search": {"space": SPACE, "num_trials": 40},
    }
)


def points(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {
            "optim.learning_rate": 10 ** draw.uniform(-5, -2),
            "lora.r": draw.choice([2, 4, 8, 16]),
            "optim.adam_beta2": 1 - 10 ** draw.uniform(-4, -1),
            "optim.lr_scheduler_type": draw.choice(["linear", "cosine"]),
        }
        for _ in range(count)
    ]


def by_learning_rate(params: dict[str, Any]) -> float:
    """A score that the learning rate decides, and the rank a little."""
    return 3 + (math.log10(params["optim.learning_rate"]) + 3) ** 2 - 0.01 * math.log2(params["lora.r"])


def found_in(ledger: Ledger) -> dict[str, float]:
    """As `pharos compare` and the page find it."""
    sweep = sweep_of_ledger(ledger, {}, source="here")
    return importance_of(sweep.space, sweep.scored())


def a_ledger(chosen: list[dict[str, Any]], scores: list[float | None], states: dict[int, TrialState]) -> Ledger:
    events: list[ev.Event] = [
        ev.SweepStarted(sweep="a", spec=spec_to_json(SPEC), digests={}, versions={}, num_trials=40, metric="eval_loss")
    ]
    for number, (params, score) in enumerate(zip(chosen, scores, strict=True)):
        trial = trial_plan(SPEC, number, params, num_train_items=100)
        state = states.get(number, TrialState.COMPLETED)
        events.append(ev.TrialCreated(number=number, trial=trial.to_json()))
        events.append(ev.TrialEnded(number=number, state=str(state), reason="", score=score, step=40))
    return Ledger.of(events)


@pytest.mark.parametrize("count", [12, 40, 200])
def test_the_field_that_decides_comes_first_and_shares_sum_to_one(count: int) -> None:
    chosen = points(count)
    found = found_in(a_ledger(chosen, [by_learning_rate(params) for params in chosen], {}))
    assert next(iter(found)) == "optim.learning_rate"
    assert found["optim.learning_rate"] > 0.5
    assert set(found) == set(SPACE)
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_stopped_trials_count_with_their_score_and_those_without_one_do_not() -> None:
    chosen = points(40)
    scores: list[float | None] = [by_learning_rate(params) for params in chosen]
    weak = {number: TrialState.PRUNED for number in range(40) if (scores[number] or 0) > 3.2}
    assert found_in(a_ledger(chosen, scores, weak)) == found_in(a_ledger(chosen, scores, {}))
    without: list[float | None] = [*scores, None, math.nan]
    diverged = {40: TrialState.DIVERGED, 41: TrialState.DIVERGED}
    assert found_in(a_ledger(points(42), without, diverged)) == found_in(a_ledger(points(42)[:40], scores, {}))


def test_the_order_of_the_trials_changes_nothing() -> None:
    scored = [(params, by_learning_rate(params)) for params in points(30)]
    there = importance_of(SPEC.search.space, scored)
    back = importance_of(SPEC.search.space, scored[::-1])
    assert back == pytest.approx(there)
    assert list(back) == list(there)


def test_points_outside_the_space_are_left_out() -> None:
    scored = [(params, by_learning_rate(params)) for params in points(30)]
    outside = ({**scored[0][0], "lora.r": 3}, 0.0)
    assert importance_of(SPEC.search.space, [outside, *scored]) == importance_of(SPEC.search.space, scored)


@pytest.mark.parametrize(
    ("count", "score"),
    [(3, by_learning_rate), (0, by_learning_rate), (20, lambda params: 2.0)],
    ids=["three trials", "no trial", "equal scores"],
)
def test_nothing_is_said_where_nothing_can_be_told(count: int, score: Any) -> None:
    assert importance_of(SPEC.search.space, [(params, score(params)) for params in points(count)]) == {}


def test_a_field_that_never_varied_has_no_share_and_alone_gives_none() -> None:
    scored = [({**params, "lora.r": 8}, by_learning_rate(params)) for params in points(30)]
    assert importance_of(SPEC.search.space, scored)["lora.r"] == pytest.approx(0, abs=1e-9)
    alone = {"lora.r": SPEC.search.space["lora.r"]}
    assert importance_of(alone, [({"lora.r": 8}, score) for _, score in scored]) == {}
    assert importance_of({}, scored) == {}


def test_it_loads_neither_ray_nor_torch_nor_scikit_learn_and_leaves_imports_as_they_were() -> None:
    program = """
import sys
from tests.unit.sweep import test_importance as own
scored = [(params, own.by_learning_rate(params)) for params in own.points(10)]
assert own.importance_of(own.SPEC.search.space, scored)
print(sorted({"ray", "torch", "sklearn", "mlflow"} & set(sys.modules)))
import sklearn
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")])}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
