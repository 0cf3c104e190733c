"""Who is repeated, under which seeds, and who wins by the repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.support.plans import a_spec

from pharos.plan import events as ev
from pharos.plan.budget import trial_plan
from pharos.plan.confirmation import confirmed, contenders, is_confirmed, num_contenders, repeats
from pharos.plan.events import event_from_json, event_to_json
from pharos.plan.ledger import Ledger
from pharos.plan.trial import BASELINE, Repeat, TrialPlan, TrialState, repeat_of, trial_name
from pharos.spec.model import ConfirmSpec

SCORES = {0: 3.0, 1: 1.2, 2: 0.9, 3: 1.1, 4: 1.0}
TOP_TWO = ConfirmSpec(top=2, seeds=2)
SPEC = a_spec(train={"max_steps": 40, "seed": 7, "data_seed": 20})


def searched(states: Mapping[int, str] = {}) -> Ledger:
    """A search of five trials that is over."""
    ledger = Ledger()
    for number, score in SCORES.items():
        plan = trial_plan(SPEC, number, {"optim.learning_rate": 10.0**-number}, 320)
        add(ledger, plan, score, states.get(number, "COMPLETED"))
    return ledger


def add(ledger: Ledger, plan: TrialPlan, score: float | None, state: str = "COMPLETED") -> None:
    ledger.apply(ev.TrialCreated(number=plan.number, trial=plan.to_json()))
    ledger.apply(ev.TrialEnded(number=plan.number, state=state, reason="it is over", score=score, step=40))


def repeated(ledger: Ledger, scores: Mapping[int, list[float | None]]) -> Ledger:
    """With repeats: scores by trial and seed; none diverged."""
    for plan in repeats(SPEC, ledger, TOP_TWO):
        repeat = repeat_of(plan.number)
        assert repeat is not None
        score = scores[repeat.of][repeat.seed - 1]
        add(ledger, plan, score, "COMPLETED" if score is not None else "DIVERGED")
    return ledger


def test_the_best_that_trained_to_their_end_stand_against_the_baseline() -> None:
    assert contenders(searched(), TOP_TWO) == [0, 2, 4]
    assert contenders(searched({2: "PRUNED"}), TOP_TWO) == [0, 4, 3]
    assert contenders(searched(), ConfirmSpec(top=50)) == [0, 2, 4, 3, 1]
    assert contenders(searched(dict.fromkeys(range(1, 5), "PRUNED")), TOP_TWO) == []


def test_all_are_repeated_under_the_same_further_seeds_and_otherwise_unchanged() -> None:
    ledger = searched()
    found = repeats(SPEC, ledger, TOP_TWO)
    assert [repeat_of(plan.number) for plan in found] == [
        Repeat(number, seed) for seed in (1, 2) for number in (0, 2, 4)
    ]
    for plan in found:
        repeat = repeat_of(plan.number)
        assert repeat is not None
        own = ledger.trials[repeat.of].plan
        assert (plan.hyperparameters.seed, plan.hyperparameters.data_seed) == (7 + repeat.seed, 20 + repeat.seed)
        unseeded = replace(plan.hyperparameters, seed=own.hyperparameters.seed, data_seed=own.hyperparameters.data_seed)
        assert replace(plan, number=own.number, hyperparameters=unseeded) == own


def test_the_repeats_decide_and_not_the_score_that_made_a_trial_the_best() -> None:
    ledger = repeated(searched(), {0: [3.1, 2.9], 2: [1.5, 1.7], 4: [1.0, 1.3]})
    found = confirmed(SPEC, ledger, TOP_TWO)
    assert found is not None
    assert (found.winner, found.seeds) == (4, (8, 9))
    winner = next(one for one in found.contenders if one["number"] == 4)
    assert winner["mean"] == pytest.approx(1.15)
    assert winner["std"] == pytest.approx(0.15 * 2**0.5)
    assert winner["difference"] == pytest.approx(-1.85)
    assert winner["interval"][0] < -1.85 < winner["interval"][1]
    assert winner["probability_better"] > 0.9
    baseline = found.contenders[0]
    assert (baseline["number"], baseline["difference"], baseline["probability_better"]) == (BASELINE, None, None)
    assert event_from_json(event_to_json(found)) == found
    assert ledger.best() == ledger.trials[2]
    ledger.apply(found)
    assert ledger.best() == ledger.trials[4]
    assert is_confirmed(ledger, TOP_TWO)
    assert not is_confirmed(ledger, ConfirmSpec(top=2, seeds=3))
    assert not is_confirmed(ledger, ConfirmSpec(top=3, seeds=2))


def test_a_contender_that_diverges_under_one_seed_does_not_win_whatever_its_other_score() -> None:
    found = confirmed(SPEC, repeated(searched(), {0: [3.1, 2.9], 2: [0.1, None], 4: [2.0, 2.2]}), TOP_TWO)
    assert found is not None
    assert found.winner == 4
    assert found.contenders[1]["scores"] == [0.1, None]
    assert found.contenders[1]["mean"] is None


def test_the_baseline_wins_where_nothing_is_better_on_average() -> None:
    found = confirmed(SPEC, repeated(searched(), {0: [0.5, 0.6], 2: [0.5, 0.6], 4: [2.0, 2.2]}), TOP_TWO)
    assert found is not None
    assert found.winner == BASELINE


def test_without_a_confirmation_or_anyone_to_confirm_nothing_is_left_to_do() -> None:
    assert is_confirmed(searched(), None)
    assert not is_confirmed(searched(), TOP_TWO)
    lonely = searched(dict.fromkeys(range(1, 5), "PRUNED"))
    assert confirmed(SPEC, lonely, TOP_TWO) is None
    assert is_confirmed(lonely, TOP_TWO)


def test_repeats_take_no_part_in_the_search_and_wait_again_after_a_crash() -> None:
    ledger = searched()
    plan = repeats(SPEC, ledger, TOP_TWO)[0]
    ledger.apply(ev.TrialCreated(number=plan.number, trial=plan.to_json()))
    ledger.apply(ev.TrialSeated(number=plan.number, pool="pool-0", seat=0, resumed_step=0))
    assert sorted(ledger.trials) == list(SCORES)
    assert [trial.number for trial in ledger.unfinished()] == [plan.number]
    ledger.apply(ev.PoolLost(pool="pool-0", reason="its node is gone", trials=(plan.number,)))
    assert ledger.record(plan.number).state == TrialState.WAITING


def test_a_repeat_is_named_after_its_trial_and_never_meets_a_trial_of_the_search() -> None:
    assert trial_name("quickstart", Repeat(7, 2).number) == "quickstart-0007-seed2"
    assert repeat_of(7) is None
    numbers = {Repeat(of, seed).number for of in range(300) for seed in range(1, 100)}
    assert len(numbers) == 300 * 99
    assert min(numbers) > 10_000


def test_as_many_are_planned_as_there_can_be() -> None:
    assert num_contenders(ConfirmSpec(top=3), 24) == 4
    assert num_contenders(ConfirmSpec(top=3), 2) == 2
    assert num_contenders(ConfirmSpec(top=3), 1) == 0
