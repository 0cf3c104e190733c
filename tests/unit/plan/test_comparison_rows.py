"""Filters, orders, tops and exports of compared trials, and what a wrong one is told."""

from __future__ import annotations

import csv
import io
import json

import pytest
from tests.unit.plan.test_comparison import a_sweep, facts

from pharos.errors import UserError
from pharos.plan.comparison import Comparison, side_by_side
from pharos.plan.comparison_export import comparison_csv, comparison_json
from pharos.plan.comparison_rows import COLUMNS, wanted_trials
from pharos.plan.trial import TrialState


@pytest.fixture
def comparison() -> Comparison:
    """Five trials: ranks are 3, 1, 4, 2 and none."""
    trials = [
        facts(0, 3.0, num_tokens=500, hyperparameters={"lora.r": 8, "lora.use_rslora": False}),
        facts(1, 1.0, hyperparameters={"lora.r": 16, "optim.lr_scheduler_type": "linear", "lora.use_rslora": True}),
        facts(2, 4.0, state=TrialState.PRUNED, steps=10, seat_s=7.5, hyperparameters={"lora.r": 32}),
        facts(3, 2.0, hyperparameters={"lora.r": 4, "optim.lr_scheduler_type": "cosine"}),
        facts(4, None, state=TrialState.DIVERGED, hyperparameters={"lora.r": 64}, reason="loss, not finite"),
    ]
    return side_by_side([a_sweep(*trials, winner=1)])


def numbers(comparison: Comparison, **wanted: object) -> list[int]:
    return [trial.facts.number for trial in wanted_trials(comparison, **wanted)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], [1, 3, 0, 2, 4]),
        (["state=COMPLETED"], [1, 3, 0]),
        (["state = pruned"], [2]),
        (["state!=COMPLETED"], [2, 4]),
        (["lora.r>=16"], [1, 2, 4]),
        (["lora.r>=16", "eval_loss<3.5"], [1]),
        (["score<=3"], [1, 3, 0]),
        (["score>3"], [2]),
        (["score!=3"], [1, 3, 2, 4]),
        (["optim.lr_scheduler_type=cosine"], [3]),
        (["optim.lr_scheduler_type!=cosine"], [1, 0, 2, 4]),
        (["lora.use_rslora=true"], [1]),
        (["is_baseline==false", "time<10"], [2]),
        (["rank<3"], [1, 3]),
        (["trial=a-0003"], [3]),
        (["difference<-1.5"], [1]),
        (["reason=loss, not finite"], [4]),
    ],
)
def test_filters_leave_the_trials_that_pass_all_of_them(
    comparison: Comparison, filters: list[str], expected: list[int]
) -> None:
    assert numbers(comparison, filters=filters) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("lora.r", [3, 0, 1, 2, 4]),
        ("-lora.r", [4, 2, 1, 0, 3]),
        ("-eval_loss", [2, 0, 3, 1, 4]),
        ("score", [1, 3, 0, 2, 4]),
        ("optim.lr_scheduler_type", [3, 1, 0, 2, 4]),
        ("-tokens", [1, 3, 2, 4, 0]),
        ("best_at", [1, 3, 0, 2, 4]),
        ("state", [1, 3, 0, 4, 2]),
    ],
)
def test_any_column_orders_and_what_has_no_value_comes_last(
    comparison: Comparison, sort: str, expected: list[int]
) -> None:
    assert numbers(comparison, sort=sort) == expected


def test_the_top_keeps_the_baseline_in_its_place(comparison: Comparison) -> None:
    assert numbers(comparison, top=1) == [1, 0]
    assert numbers(comparison, top=3) == [1, 3, 0]
    assert numbers(comparison, top=1, sort="-lora.r") == [4, 0]
    assert numbers(comparison, top=1, filters=["is_baseline=false"]) == [1]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ("lora.rr>=16", "--filter 'lora.rr>=16': there is no field lora.rr. Did you mean lora.r?"),
        ("r>=16", "there is no field r. Did you mean lora.r?"),
        ("scheduler=linear", "there is no field scheduler. Did you mean optim.lr_scheduler_type?"),
        ("bananas=1", "there is no field bananas. There are eval_loss, rank, .* and hyperparameters such as"),
        ("evalloss<3", "there is no field evalloss. Did you mean eval_loss?"),
        ("rank", "--filter 'rank' is no comparison. Write FIELD, one of = != < <= > >=, and a value: lora.r>=16."),
        ("rank=", "is no comparison"),
        ("lora.r>=big", "--filter 'lora.r>=big': lora.r is a number, and big is none."),
        ("state=DONE", "DONE is no state of a trial. States are WAITING, RUNNING, COMPLETED"),
        ("state=COMPLETE", "COMPLETE is no state of a trial. Did you mean COMPLETED?"),
        ("state>COMPLETED", "state has no order, so that > cannot compare it. Use = or !=."),
        ("lora.use_rslora=1", "lora.use_rslora is true or false, not 1."),
    ],
)
def test_a_filter_that_cannot_be_is_refused_with_what_could(comparison: Comparison, filters: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?").replace("(", r"\(")):
        wanted_trials(comparison, filters=[filters])


def test_a_synonym_leads_to_the_field() -> None:
    comparison = side_by_side([a_sweep(facts(0, 1.0))])
    with pytest.raises(UserError, match=r"--sort -lr: there is no field lr. Did you mean optim.learning_rate\?"):
        wanted_trials(comparison, sort="-lr")


def test_json_holds_every_column_and_what_was_asked_for(comparison: Comparison) -> None:
    chosen = wanted_trials(comparison, filters=["rank<=2"])
    told = json.loads(json.dumps(comparison_json(comparison, chosen, {"a": {"lora.r": 1.0}})))
    assert list(told) == ["schema", "metric", "sweeps", "trials"]
    [sweep] = told["sweeps"]
    assert (sweep["sweep"], sweep["num_trials"], sweep["winner"], sweep["importance"]) == ("a", 5, 1, {"lora.r": 1.0})
    assert [trial["number"] for trial in told["trials"]] == [1, 3]
    assert list(told["trials"][0]) == [*COLUMNS, "params", "hyperparameters"]
    assert told["trials"][0]["hyperparameters"]["lora.r"] == 16
    assert told["trials"][0]["is_winner"] is True


def test_csv_has_the_same_columns_whatever_is_asked_for(comparison: Comparison) -> None:
    everything = list(csv.reader(io.StringIO(comparison_csv(comparison, wanted_trials(comparison)))))
    some = list(csv.reader(io.StringIO(comparison_csv(comparison, wanted_trials(comparison, top=1)))))
    assert everything[0] == some[0] == [*COLUMNS, "lora.r", "lora.use_rslora", "optim.lr_scheduler_type"]
    assert len(everything) == 6
    best = dict(zip(everything[0], everything[1], strict=True))
    assert (best["trial"], best["score"], best["is_winner"], best["lora.r"]) == ("a-0001", "1.0", "true", "16")
    last = dict(zip(everything[0], everything[-1], strict=True))
    assert (last["score"], last["rank"], last["reason"], last["lora.use_rslora"]) == ("", "", "loss, not finite", "")


def test_the_columns_are_those_that_programs_know() -> None:
    known = (
        "rank sweep number trial state reason score best_step steps num_steps clocks num_tokens seat_s cost_share "
        "is_baseline is_winner difference repeats repeated_difference repeated_low repeated_high "
        "repeated_probability_better"
    )
    assert " ".join(COLUMNS) == known
