"""What a person sees of a long merge and of two curves, on a terminal and in a file."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from pharos.console import bytes_progress, show_curves, steps_progress


def plain() -> Console:
    return Console(file=StringIO(), width=80)


def terminal() -> Console:
    return Console(file=StringIO(), width=100, force_terminal=True)


def text_of(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_without_a_terminal_each_tenth_is_one_line() -> None:
    console = plain()
    with bytes_progress("merging", console=console) as tell:
        for done in range(0, 4_000_000_001, 50_000_000):
            tell(done, 4_000_000_000)
    lines = text_of(console).splitlines()
    assert len(lines) == 10
    assert lines[0] == "merging: 10%, 0.4 of 4.0 GB"
    assert lines[-1] == "merging: 100%, 4.0 of 4.0 GB"


def test_a_leap_is_one_line_and_little_is_counted_in_megabytes() -> None:
    console = plain()
    with bytes_progress("merging", console=console) as tell:
        tell(5_000_000, 5_000_000)
    assert text_of(console) == "merging: 100%, 5.0 of 5.0 MB\n"


def test_a_terminal_has_a_bar_that_goes_away() -> None:
    console = terminal()
    with bytes_progress("merging", console=console) as tell:
        tell(1, 2)
    assert "merging" in text_of(console)
    assert "merging: " not in text_of(console)
    with steps_progress("training", console=console) as watch:
        watch(1, 2)
    assert "training" in text_of(console)


def test_curves_are_dense_where_the_comparison_decides() -> None:
    console = plain()
    curve = {step: 1.0 / step for step in range(1, 201)}
    show_curves(curve, curve | {200: 0.505}, console=console)
    lines = text_of(console).splitlines()
    steps = [int(line.split()[0]) for line in lines[1:]]
    assert len(steps) == 12
    assert steps[0] == 1
    assert steps[-1] == 200
    assert len([step for step in steps if step <= 30]) == 6
    assert lines[1].split() == ["1", "1.000000", "1.000000", "0.0e+00"]
    assert lines[-1].split() == ["200", "0.005000", "0.505000", "5.0e-01"]


def test_a_curve_that_ended_early_shows_where() -> None:
    console = plain()
    show_curves({1: 3.0, 2: 2.0}, {1: 3.0}, console=console)
    assert text_of(console).splitlines()[-1].split() == ["2", "2.000000", "nan", "-"]
