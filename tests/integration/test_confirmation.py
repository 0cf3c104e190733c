"""A sweep that ranks trials by generated answers, and repeats the best and the baseline before it names a winner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.small_sweep import (
    Workplace,
    largest_difference,
    prepared_rows,
    spec_fields,
    steps_of,
    train_alone,
    workplace,
)

from pharos.data.prepare import open_prompts
from pharos.model.generate import exact_match
from pharos.plan.events import RungDecided, TestScored, TrialEnded, WinnerConfirmed
from pharos.plan.trial import BASELINE, Repeat
from pharos.spec.load import load_spec

pytestmark = pytest.mark.timeout(600)

CURVE_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Iterator[Workplace]:
    search = spec_fields()["search"]
    search |= {"num_trials": 4, "confirm": {"top": 1, "seeds": 2}}
    search |= {"metric": "exact_match", "generation": {"max_rows": 10, "max_new_tokens": 4}}
    place = workplace(tmp_path_factory.mktemp("confirmed"), small_base, search=search)
    try:
        run = place.run("sweep")
        assert run.returncode == 0, run.stdout + run.stderr
        assert "confirmed under 2 further seeds: " in run.stdout
        yield place
    finally:
        place.end_everything()


def test_winner_and_baseline_are_repeated_before_test_rows_are_read(confirmed: Workplace) -> None:
    ledger, events, result = confirmed.ledger(), confirmed.events(), confirmed.result()
    best = ledger.ranking()[0].number
    assert best != BASELINE
    assert sorted(ledger.repeats) == sorted(Repeat(of, seed).number for of in (BASELINE, best) for seed in (1, 2))
    named = next(event.sequence for event in events if isinstance(event, WinnerConfirmed))
    assert max(event.sequence for event in events if isinstance(event, TrialEnded)) < named
    assert min(event.sequence for event in events if isinstance(event, TestScored)) > named
    assert result["best"] == result["confirmation"]["winner"] == best
    assert result["confirmation"]["seeds"] == [1, 2]
    assert result["registered"]["trial"] == best
    assert {trial["steps"] for trial in result["repeats"]} == {16}
    scores = {trial["name"]: trial["score"] for trial in result["repeats"]}
    contender = next(one for one in result["confirmation"]["contenders"] if one["number"] == best)
    assert contender["scores"] == [scores[f"small-{best:04d}-seed{seed}"] for seed in (1, 2)]
    losses = [trial.evaluations[16]["eval_loss"] for trial in (ledger.trials[best], *ledger.repeats.values())]
    assert len(set(losses)) == 5, "each seed is another training"
    assert contender["difference"] > 0
    assert contender["probability_better"] > 0.5


def test_answers_are_scored_at_rungs_and_at_the_end_as_plain_peft_scores_them(confirmed: Workplace) -> None:
    """The pool generates for all seats of two ranks at once, over a base in halves."""
    ledger = confirmed.ledger()
    rungs = {event.rung for event in confirmed.events() if isinstance(event, RungDecided)}
    prompts, references = open_prompts(prepared_rows(confirmed.paths.storage), "eval")
    asked = [prompt.tolist() for prompt in prompts[:10]]
    scores = {}
    for trial in ledger.records():
        answered = {step for step, metrics in trial.evaluations.items() if "exact_match" in metrics}
        last = max(trial.evaluations)
        per_step = trial.plan.clocks_per_step
        at_rungs = {step for step in trial.evaluations if step * per_step in rungs}
        assert answered == at_rungs | ({last} if trial.state == "COMPLETED" else set())
        assert trial.score == max(trial.evaluations[step]["exact_match"] for step in answered)
        assert trial.best_checkpoint is not None
        found = exact_match(
            confirmed.root / "base",
            asked,
            references[:10],
            max_new_tokens=4,
            adapter_dir=Path(trial.best_checkpoint),
        )
        assert found.score == trial.score
        scores[trial.number] = trial.score
    assert len(set(scores.values())) > 1, "this sweep is made so that some trials answer better than others"
    assert ledger.ranking()[0].score == max(scores[number] for number in ledger.trials)


def test_a_repeat_trains_as_if_it_were_alone(confirmed: Workplace, tmp_path: Path) -> None:
    ledger, events = confirmed.ledger(), confirmed.events()
    number = Repeat(ledger.ranking()[0].number, 2).number
    alone = train_alone(
        load_spec(confirmed.spec),
        ledger.repeats[number].plan,
        base=confirmed.root / "base",
        data=prepared_rows(confirmed.paths.storage),
        trials=tmp_path,
        report_every=4,
    )
    assert len(steps_of(events, number)) == 16
    assert largest_difference(events, number, alone) < CURVE_TOLERANCE


def test_a_confirmed_sweep_has_nothing_left_to_do(confirmed: Workplace) -> None:
    before = confirmed.events()
    run = confirmed.run("sweep")
    assert run.returncode == 0, run.stdout + run.stderr
    assert confirmed.events() == before
