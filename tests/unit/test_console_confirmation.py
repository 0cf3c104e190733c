"""What a person sees of repeats under further seeds: in the plan, while they train, and at the end."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from rich.console import Console
from tests.support.scripted_sweep import make_plan, make_spec, scripted_sweep

from pharos.console import show_plan, show_result
from pharos.console.live_view import LiveState, live_view
from pharos.console.narration import narrate
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.confirmation import confirmed, repeats
from pharos.plan.ledger import Ledger
from pharos.plan.result import result_json
from pharos.plan.trial import repeat_of
from pharos.spec.model import ConfirmSpec, SweepSpec

CONFIRM = ConfirmSpec(top=2, seeds=3)


def confirming() -> SweepSpec:
    spec = make_spec()
    assert spec.search is not None
    return spec.model_copy(update={"search": spec.search.model_copy(update={"confirm": CONFIRM})})


def searched(spec: SweepSpec) -> list[ev.Event]:
    return [
        event
        for batch in scripted_sweep(spec, make_plan(spec))
        for event in batch
        if event.kind not in ("test_scored", "model_registered", "sweep_ended", "pool_closed")
    ]


def repeated(spec: SweepSpec, ledger: Ledger) -> list[ev.Event]:
    happened: list[ev.Event] = []
    for plan in repeats(spec, ledger, CONFIRM):
        repeat = repeat_of(plan.number)
        assert repeat is not None
        score = (ledger.trials[repeat.of].score or 0) + 0.01 * repeat.seed * (1 + repeat.of / 7)
        happened.append(ev.TrialCreated(number=plan.number, trial=plan.to_json()))
        happened.append(
            ev.TrialEnded(number=plan.number, state="COMPLETED", reason="in full", score=score, step=plan.num_steps)
        )
    return happened


def text_of(show, *arguments, width: int = 100, **options) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False, _environ={})
    show(*arguments, console=console, **options)
    return re.sub(r"[ \n]+", " ", console.file.getvalue())


def test_the_plan_says_what_a_confirmation_costs() -> None:
    spec = confirming()
    text = text_of(show_plan, make_plan(spec), spec)
    assert "confirm the best 2 and the baseline again under 3 further seeds, at full length: 9 repeats" in text
    assert "1,800 trial clocks more; the best on their average wins" in text
    assert "confirm" not in text_of(show_plan, make_plan(make_spec()), make_spec())


def test_repeats_sit_in_seats_and_are_counted_while_they_train() -> None:
    spec = confirming()
    state = LiveState(plan=make_plan(spec), entered_s=0.0, phase="repeating")
    state.take(searched(spec))
    plans = repeats(spec, state.ledger, CONFIRM)
    created = [ev.TrialCreated(number=plan.number, trial=plan.to_json()) for plan in plans]
    seated = [
        ev.TrialSeated(number=plan.number, pool="pool-0", seat=seat, resumed_step=0)
        for seat, plan in enumerate(plans[:8])
    ]
    state.take([replace(event, time_s=1200.0) for event in (*created, *seated)])
    console = Console(file=io.StringIO(), width=100, force_terminal=False, _environ={})
    console.print(live_view(state, width=100, height=60, now_s=200.0))
    text = console.file.getvalue()
    assert "confirming: 0 of 9 repeats" in text
    assert "8 training" in text
    assert "0000-seed1" in text
    assert "12 of 12 trials" in text


def test_the_end_names_the_confirmed_winner_with_spread_interval_and_probability() -> None:
    spec = confirming()
    ledger = Ledger.of(searched(spec))
    for event in repeated(spec, ledger):
        ledger.apply(event)
    winner = confirmed(spec, ledger, CONFIRM)
    assert winner is not None
    [line] = narrate(ledger, [winner])[:1]
    assert line.text.startswith("confirmed under 3 further seeds: ")
    text = text_of(show_result, result_json(ledger, make_plan(spec)))
    assert "3 further seeds mean spread difference 95% interval better" in text
    one = next(one for one in winner.contenders if one["number"] == winner.winner)
    assert f"{winner.winner:04d} {one['mean']:.4f} {one['std']:.4f} {one['difference']:+.4f}" in text
    assert "0000 baseline" in text
    assert "> 99.9%" in text or "99." in text
    unconfirmed = result_json(Ledger.of(searched(spec)), make_plan(spec))
    assert "further seeds" not in text_of(show_result, unconfirmed)


def test_the_table_of_contenders_fits_a_terminal_of_eighty_columns() -> None:
    spec = confirming()
    ledger = Ledger.of(searched(spec))
    for event in repeated(spec, ledger):
        ledger.apply(event)
    winner = confirmed(spec, ledger, CONFIRM)
    assert winner is not None
    ledger.apply(winner)
    text = text_of(show_result, result_json(ledger, make_plan(spec)), width=80)
    assert "3 further seeds mean spread difference 95% interval better" in text
    assert f"{words.score(winner.contenders[0]['mean'])} {words.score(winner.contenders[0]['std'])}" in text
