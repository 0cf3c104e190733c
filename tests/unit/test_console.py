"""What a person sees of a scripted sweep: live frames that fit, plain lines, plan, result and errors."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from math import inf

import pytest
from rich.console import Console
from tests.support.scripted_sweep import (
    make_plan,
    make_spec,
    scripted_result,
    scripted_sweep,
)

from pharos.console import LiveSweep, show_error, show_plan, show_result
from pharos.console.live_view import LiveState, live_view
from pharos.errors import SpecError
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.sweep_plan import SweepPlan
from pharos.spec.model import SweepSpec


def text_console(*, width: int = 80) -> Console:
    """Not a terminal: what a log file or a pipe gets."""
    return Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False, _environ={})


def printed(console: Console) -> str:
    return console.file.getvalue()


def frame(state: LiveState, *, width: int, height: int, now_s: float = 60.0) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, _environ={})
    options = console.options.update(width=width, height=None)
    lines = console.render_lines(live_view(state, width=width, height=height, now_s=now_s), options, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def told_until(plan: SweepPlan, spec: SweepSpec, num_batches: int) -> LiveState:
    state = LiveState(plan=plan, entered_s=0.0)
    for index, batch in enumerate(scripted_sweep(spec, plan)):
        if index == num_batches:
            break
        state.take(batch)
    return state


@pytest.mark.parametrize(("width", "height"), [(80, 23), (60, 15), (100, 30), (200, 60)])
@pytest.mark.parametrize("seats_per_worker", [2, 4, 16])
def test_every_frame_fits_its_terminal(width, height, seats_per_worker) -> None:
    spec = make_spec(num_trials=40, seats_per_worker=seats_per_worker)
    plan = make_plan(spec)
    state = LiveState(plan=plan, entered_s=0.0, phase="training")
    for batch in scripted_sweep(spec, plan):
        state.take(batch)
        lines = frame(state, width=width, height=height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_a_frame_shows_seats_leaders_baseline_and_decisions() -> None:
    spec = make_spec()
    text = "\n".join(frame(told_until(make_plan(spec), spec, 5), width=100, height=40, now_s=72.0))
    assert "quickstart" in text
    assert "of 12 trials  1:12, about" in text
    assert "trained tokens/s" in text
    assert re.search(r"0  0000   RUNNING  ━+─+ 50/200 ", text)
    assert re.search(r"\d  0000   +1\.\d{4}  RUNNING  +50  baseline: r 8, lr 0.0002, beta2 0.999", text)
    assert re.search(r"0:10  0011 goes on at rung 25: 1.59 is 5th of 12; the best 6 go on", text)


def test_before_the_first_trial_the_phase_is_shown() -> None:
    spec = make_spec()
    state = LiveState(plan=make_plan(spec), entered_s=0.0, phase="building builtin:tiny 120/600")
    lines = frame(state, width=80, height=23, now_s=4.0)
    assert lines[0] == "quickstart  0:04"
    assert "building builtin:tiny 120/600" in lines[1]


def test_seats_beyond_the_height_are_counted() -> None:
    spec = make_spec(num_trials=64, seats_per_worker=16)
    lines = frame(told_until(make_plan(spec), spec, 3), width=80, height=23)
    assert any(re.fullmatch(r"and \d+ more seats", line) for line in lines)
    decisions = [line for line in lines if re.match(r"\d:\d\d  ", line)]
    assert len(decisions) >= 2  # seats leave room for them


def test_time_left_falls_to_nothing_as_the_sweep_ends() -> None:
    spec = make_spec()
    plan = make_plan(spec)
    titles = [frame(told_until(plan, spec, n), width=100, height=40)[0] for n in range(3, 18, 2)]
    left = [
        int(minutes) * 60 + int(seconds)
        for title in titles
        for minutes, seconds in re.findall(r"about (\d+):(\d+) left", title)
    ]
    assert len(left) >= 4
    assert left[0] > left[-1]
    assert left[-1] <= 10


PLAIN_START = """\
starting Ray
0:00  quickstart: 4 trials, ranked by eval_loss
0:00  pool-0 is up: 2 workers, 4 seats
0:00  the baseline takes seat 0: r 8, lr 0.0002, beta2 0.999
0:00  0001 takes seat 1: r 4, lr 1.78e-05, beta2 0.9369
0:00  0002 takes seat 2: r 8, lr 3.16e-05, beta2 0.96019
0:00  0003 takes seat 3: r 16, lr 5.62e-05, beta2 0.97488
0:05  the baseline goes on at rung 25: 1.667 is 1st of 4; the best 2 go on
0:05  0001 is stopped at rung 25: 2.188 is 4th of 4; the best 2 go on
0:05  0002 is stopped at rung 25: 2.029 is 3rd of 4; the best 2 go on
0:05  0003 goes on at rung 25: 1.892 is 2nd of 4; the best 2 go on
0:05  best so far: 1.6673 by the baseline at step 25
"""
PLAIN_END = """\
0:40  the baseline COMPLETED at step 200, best 1.0177: trained to its full length
0:40  best so far: 1.0177 by the baseline at step 200
0:40  test rows, untrained base: test_loss 2.9000, exact_match 0.0%
0:40  test rows, the baseline: test_loss 1.5100, exact_match 67.5%
0:40  registered the baseline as docker-assistant version 3, alias candidate
0:40  COMPLETED: all trials are done
"""


def test_without_a_terminal_plain_lines_tell_the_sweep() -> None:
    spec = make_spec(num_trials=4)
    plan, console = make_plan(spec), text_console()
    with LiveSweep(console, plan, now=lambda: 0.0) as view:
        view.phase("starting Ray")
        for batch in scripted_sweep(spec, plan):
            view.update(batch)
    text = printed(console)
    assert text.startswith(PLAIN_START)
    assert text.endswith(PLAIN_END)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_a_trial_that_diverges_is_told_with_its_reason() -> None:
    spec = make_spec()
    console = text_console()
    with LiveSweep(console, make_plan(spec), now=lambda: 0.0) as view:
        for batch in scripted_sweep(spec, make_plan(spec)):
            view.update(batch)
    assert "0005 DIVERGED at step 50, best 1.6" in printed(console)
    assert "gradient of step 31 is not finite" in printed(console)


def test_a_counting_phase_is_one_plain_line() -> None:
    console = text_console()
    with LiveSweep(console, make_plan(make_spec()), now=lambda: 0.0) as view:
        for step in (60, 120, 600):
            view.phase(f"building builtin:tiny {step}/600")
        view.phase("starting Ray")
    assert printed(console) == "building builtin:tiny 60/600\nstarting Ray\n"


def test_what_happened_before_a_resume_is_not_told_again() -> None:
    spec = make_spec(num_trials=4)
    plan, console = make_plan(spec), text_console()
    before = [event for batch in list(scripted_sweep(spec, plan))[:3] for event in batch]
    again = ev.SweepStarted(
        sweep="quickstart",
        spec={},
        digests={},
        versions={},
        num_trials=4,
        metric="eval_loss",
        resumed=True,
        time_s=5000.0,
        sequence=len(before),
    )
    with LiveSweep(console, plan, now=lambda: 0.0) as view:
        view.update([*before, again])
    assert printed(console) == "0:00  quickstart: resumed, 2 of 4 trials, ranked by eval_loss\n"


def test_on_a_terminal_the_view_leaves_nothing_behind_but_the_screen_it_found() -> None:
    spec = make_spec(num_trials=4)
    plan = make_plan(spec)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={"NO_COLOR": "1"})
    with LiveSweep(console, plan, now=lambda: 0.0) as view:
        view.phase("starting Ray")
        for batch in scripted_sweep(spec, plan):
            view.update(batch)
    text = printed(console)
    assert "starting Ray" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text)  # NO_COLOR: no foreground colour
    assert text.endswith("\x1b[2K")  # the last line of the view is erased
    assert "\x1b[?25h" in text  # and the cursor is back


def test_the_plan_says_what_will_happen() -> None:
    spec, console = make_spec(), text_console(width=100)
    show_plan(replace(make_plan(spec), warnings=("optim.learning_rate=1 is [odd]",)), spec, console=console)
    text = re.sub(r"\s+", " ", printed(console))
    for part in (
        "quickstart 12 trials over builtin:tiny",
        "1.3M parameters, float32, replicated: a whole base and its seats take 0.9 GB of a worker's 8.4 GB",
        "800 train, 100 eval, 200 test rows",
        "trial 0 the file's own values, the baseline: r 8,",
        "200 steps of 8 rows, 200 clocks, a report every 25",
        "optim.adam_beta2 0.9 to 0.9999, logarithmic in the distance from 1",
        "1 in 2 goes on at 25, 50, 100 of 200 clocks; about 800 trial clocks instead of 2,400 (67% saved)",
        "2 workers x 4 seats",
        "a worker, of 8.4 GB that it may use",
        "warning: optim.learning_rate=1 is [odd]",
    ):
        assert part in text


def test_the_result_compares_the_winner_with_the_baseline_and_says_what_to_type() -> None:
    spec = make_spec()
    console = text_console()
    long_root = "/storage/" + "deep/" * 20 + "quickstart"
    show_result(
        scripted_result(spec, make_plan(spec)),
        root=long_root,
        report=f"{long_root}/report.html",
        model_dir=f"{long_root}/merged",
        tracking_uri="sqlite:////storage/mlflow.db",
        options=["--storage", "/a place"],
        console=console,
    )
    text = printed(console)
    for part in (
        "quickstart  COMPLETED: all trials are done",
        " of the baseline (",
        "docker-assistant version 3, alias candidate",
        f"{long_root}/result.json\n",
        f"report    {long_root}/report.html\n",
        "tracking  sqlite:////storage/mlflow.db\n",
        "next      pharos compare quickstart --storage '/a place'\n",
        "          pharos promote docker-assistant --storage '/a place'\n",
        f'model = AutoModelForCausalLM.from_pretrained("{long_root}/merged")\n',
    ):
        assert part in text
    assert re.search(r"exact_match +71.5% +67.5% +0.0%", text)
    assert re.search(r"baseline: r 8", text)
    assert re.search(r"saved by stopping\s+early", text)


def test_a_winner_that_is_no_better_is_said_out_loud() -> None:
    spec = make_spec()
    result = scripted_result(spec, make_plan(spec))
    worse = result | {"test": result["test"] | {"best": {"test_loss": 1.6}}}
    for changed, said in (
        (worse, "On test rows the winner is no better than the baseline"),
        (result | {"best": 0}, "No trial was better than the baseline"),
        (result | {"best": None}, "No trial has a score."),
    ):
        console = text_console()
        show_result(changed, console=console)
        assert said in printed(console)
    console = text_console()
    show_result(result, console=console)
    assert "no better" not in printed(console)


def test_an_error_is_its_message_and_nothing_else() -> None:
    console = text_console(width=40)
    message = "quickstart.yaml:7: optim.learning_rat=2e-4 is no field of [optim]. Did you mean learning_rate?"
    show_error(SpecError(message), console=console)
    assert printed(console) == f"error: {message}\n"


def test_numbers_are_written_for_people() -> None:
    assert [words.value(v) for v in (2e-4, 1.234e-5, 0.99987, 0.9, 16, 16.0, "cosine", True)] == [
        *("0.0002", "1.23e-05", "0.99987", "0.9", "16", "16", "cosine", "True")
    ]
    assert [words.duration(s) for s in (0, 61.4, 3601, -3)] == ["0:00", "1:01", "1:00:01", "0:00"]
    assert [words.count(n) for n in (950, 18_240, 1_315_000, 8_030_261_248)] == ["950", "18.2k", "1.3M", "8.03B"]
    assert [words.score(s) for s in (None, inf, 0.81234)] == ["-", "-", "0.8123"]
