"""Which adapters may go, and which never do."""

from __future__ import annotations

import pytest
from tests.support.scripted_sweep import make_plan, make_spec, scripted_sweep

from pharos.plan import events as ev
from pharos.plan.ledger import Ledger
from pharos.plan.retention import disposable
from pharos.plan.trial import BASELINE, Repeat


@pytest.fixture
def ledger() -> Ledger:
    """Twelve trials at their end, one of them without a score."""
    spec = make_spec()
    batches = scripted_sweep(spec, make_plan(spec))
    told = Ledger.of(event for batch in batches for event in batch)
    told.ranking()[-1].score = None
    return told


def kept(ledger: Ledger, *, adapters: int, contenders: int = 0) -> set[int]:
    return set(ledger.trials) - set(disposable(ledger, adapters=adapters, contenders=contenders))


def test_the_best_so_many_stay_and_the_baseline(ledger: Ledger) -> None:
    ranking = [trial.number for trial in ledger.ranking()]
    assert BASELINE not in ranking[:3]
    assert kept(ledger, adapters=3) == {*ranking[:3], BASELINE}
    assert kept(ledger, adapters=100) == {*ranking, BASELINE}  # what has no score has no adapter that is worth anything
    assert len(ranking) < len(ledger.trials)


def test_without_a_number_everything_stays(ledger: Ledger) -> None:
    assert disposable(ledger, adapters=None) == ()


def test_who_is_going_to_be_repeated_stays(ledger: Ledger) -> None:
    ranking = [trial.number for trial in ledger.ranking()]
    assert kept(ledger, adapters=1, contenders=4) == {*ranking[:4], BASELINE}


def test_who_was_repeated_stays_and_so_does_who_is_registered(ledger: Ledger) -> None:
    ranking = [trial.number for trial in ledger.ranking()]
    repeat = Repeat(of=ranking[4], seed=1).number
    ledger.repeats[repeat] = ledger.trials[ranking[4]]
    ledger.registered = ev.ModelRegistered(number=ranking[5], model="m", version="1", alias="candidate", source="")
    assert kept(ledger, adapters=1) == {ranking[0], ranking[4], ranking[5], BASELINE}


def test_the_confirmed_winner_stays_whatever_its_first_score(ledger: Ledger) -> None:
    ranking = [trial.number for trial in ledger.ranking()]
    ledger.confirmation = ev.WinnerConfirmed(winner=ranking[6], seeds=(1,), contenders=())
    assert kept(ledger, adapters=1) == {ranking[0], ranking[6], BASELINE}


def test_a_trial_that_is_not_at_its_end_stays(ledger: Ledger) -> None:
    spec = make_spec()
    batches = list(scripted_sweep(spec, make_plan(spec)))
    early = Ledger.of(event for batch in batches[: len(batches) // 2] for event in batch)
    live = {number for number, trial in early.trials.items() if not trial.state.is_final}
    assert live
    assert live <= kept(early, adapters=1)


def test_nothing_is_named_twice(ledger: Ledger) -> None:
    gone = disposable(ledger, adapters=2)
    assert gone
    ledger.apply(ev.AdaptersRemoved(numbers=gone, reason="keep.adapters=2", sequence=ledger.next_sequence))
    assert disposable(ledger, adapters=2) == ()
    assert all(ledger.trials[number].best_checkpoint is None for number in gone)
    assert all(ledger.trials[number].evaluations or ledger.trials[number].score is None for number in gone)
