"""What `pharos data check` prints: the rows by splits, a histogram, findings, a verdict. Rows: `row_view.py`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import pairwise

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pharos.console.row_view import visible
from pharos.data.check_report import CheckReport, SplitReport, obstacles, warnings
from pharos.plan import words

BAR = "█"
PARTS = " ▏▎▍▌▋▊▉"
STYLES = {"clean": "bold green", "usable": "bold yellow", "not usable": "bold red"}


def show_check(
    report: CheckReport,
    *,
    target: str,
    command: str,
    is_sweep: bool,
    has_own_tokenizer: bool = True,
    console: Console | None = None,
) -> None:
    """Print the report of `target`, a sweep file or a data file, which `command` made, and what to type next."""
    console = console or Console(highlight=False)
    console.print(Text.assemble((target, "bold"), f"  {_counted(report)}"), soft_wrap=True)
    console.print(_facts(report))
    console.print()
    console.print(_by_split(report))
    if report.bucket_starts:
        console.print()
        console.print(_histogram(report, console.width))
    console.print()
    _print_errors(report, console)
    for warning in warnings(report):
        _print(console, ("warning: ", "yellow"), visible(warning.text))
        for example in warning.examples:
            _print(console, (f"         {visible(example)}", "dim"))
    _print(console, "verdict: ", (report.verdict, STYLES[report.verdict]), _because(report))
    for step in _next_steps(report, target=target, command=command, is_sweep=is_sweep, has_own=has_own_tokenizer):
        console.print(Text(f"next:    {step}"), soft_wrap=True)


def _counted(report: CheckReport) -> str:
    errors = report.errors
    num_bad = errors.num_rows - errors.num_too_long
    told = words.plural(sum(part.num_rows for part in report.splits), "row")
    told += f", {num_bad:,} more in error" if num_bad else ", none in error"
    return told + (f", {errors.num_too_long:,} too long" if errors.num_too_long else "")


def _facts(report: CheckReport) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("format", report.format or "none that is known")
    facts.add_row("tokens", f"by the tokenizer of {report.tokenizer}, template {report.template}")
    facts.add_row("length", f"data.max_length={report.max_length}, data.long_rows={report.long_rows}")
    if report.packing is not None:
        facts.add_row("padding", _padding(report))
    return facts


def _padding(report: CheckReport) -> str:
    packing = report.packing
    assert packing is not None
    about = "about " if packing.is_sample else ""
    pads = f"{about}{packing.pad_share:.1%} of a batch are pads at micro-batches of {packing.micro_batch_size}"
    packs = (
        f"{words.plural(packing.num_packs, 'sequence')} of {report.max_length} tokens, {about}{packing.fill:.1%} full"
    )
    saves = f"{about}{packing.saved_share:.1%} less to compute"
    if packing.is_on:
        return f"none: data.packing=true makes {packs}; without it {pads}"
    if packing.saved_share <= 0:
        return f"{pads}; data.packing=true would save nothing here ({packs})"
    return f"{pads}; data.packing=true would make {packs}: {saves}"


def _by_split(report: CheckReport) -> Table:
    """One column for each split, one row for each number."""
    table = Table.grid(padding=(0, 3))
    table.add_column(no_wrap=True)
    for _ in report.splits:
        table.add_column(justify="right")
    table.add_row("", *(Text(part.split, style="bold") for part in report.splits))
    numbers: tuple[tuple[str, Callable[[SplitReport], int]], ...] = (
        ("rows", lambda part: part.num_rows),
        ("  beyond data.max_*_rows, not used", lambda part: part.num_beyond_limit),
        ("turns", lambda part: part.num_turns),
        ("tokens", lambda part: part.num_tokens),
        ("  of a row, half have at most", lambda part: part.p50_tokens),
        ("  95 in 100 have at most", lambda part: part.p95_tokens),
        ("  the longest", lambda part: part.max_tokens),
        ("trained tokens", lambda part: part.num_trained_tokens),
    )
    for name, number in numbers:
        counts = [number(part) for part in report.splits]
        if any(counts) or "beyond" not in name:
            table.add_row(name, *(f"{count:,}" for count in counts))
    table.add_row("  share of all", *(f"{part.trained_share:.1%}" for part in report.splits))
    found: tuple[tuple[str, Callable[[SplitReport], int]], ...] = (
        ("cut at a turn", lambda part: part.num_cut_at_turn),
        ("cut inside a turn", lambda part: part.num_cut_inside),
        ("left out as too long", lambda part: part.num_left_out),
        ("masked out: no trained token", lambda part: part.num_masked_out),
        ("repeats of an earlier row", lambda part: part.num_repeats),
    )
    for name, number in found:
        counts = [number(part) for part in report.splits]
        table.add_row(name, *(Text(f"{count:,}", style="yellow" if count else "dim") for count in counts))
    return table


def _histogram(report: CheckReport, width: int) -> Table:
    """Rows by their tokens: for each split a bar and a count, each split by its own largest bucket."""
    starts = report.bucket_starts
    labels = [f"{start:,}-{end - 1:,}" for start, end in pairwise(starts)]
    step = starts[1] - starts[0] if len(starts) > 1 else 1
    last = f"{starts[-1]:,} and more" if report.last_bucket_is_open else f"{starts[-1]:,}-{starts[-1] + step - 1:,}"
    labels = [label if step > 1 else label.split("-")[0] for label in labels]
    labels.append(last if step > 1 or report.last_bucket_is_open else f"{starts[-1]:,}")
    digits = max(len(f"{count:,}") for part in report.splits for count in part.histogram)
    room = (min(width, 120) - max(map(len, [*labels, "tokens a row"])) - 3) // len(report.splits) - digits - 4
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    for _ in report.splits:
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, min_width=max(room, 4))
    header = [cell for part in report.splits for cell in ("", Text(part.split, style="bold"))]
    table.add_row(Text("tokens a row", style="dim"), *header)
    for index, label in enumerate(labels):
        cells: list[Text] = []
        for part in report.splits:
            most = max(part.histogram, default=0)
            count = part.histogram[index]
            cells += [Text(f"{count:,}"), Text(_bar(count, most, max(room, 4)), style="blue")]
        table.add_row(label, *cells)
    return table


def _bar(count: int, most: int, width: int) -> str:
    """Eighths of a character, and never nothing for something."""
    if not count:
        return ""
    eighths = max(1, round(count / most * width * 8))
    return (BAR * (eighths // 8) + PARTS[eighths % 8]).rstrip()


def _print_errors(report: CheckReport, console: Console) -> None:
    errors = report.errors
    for error in errors.listed:
        place = (f"{visible(error.place)}: " if error.place else "", "bold")
        _print(console, ("error: ", "red"), place, visible(f"{error.reason} {error.remedy}".strip()))
    more = errors.num_mistakes - len(errors.listed)
    if more > 0:
        _print(console, f"... and {words.plural(more, 'more mistake')} like these")
    if errors.num_mistakes > 1:
        _print(console, "by kind: " + ", ".join(f"{kind} {count:,}" for kind, count in errors.kinds.items()))


def _print(console: Console, *parts: str | tuple[str, str]) -> None:
    """One line; broken between words in a terminal, and never in a file or a pipe."""
    console.print(Text.assemble(*parts), soft_wrap=not console.is_terminal)


def _next_steps(report: CheckReport, *, target: str, command: str, is_sweep: bool, has_own: bool) -> list[str]:
    if report.verdict == "not usable":
        return [f"{command}  (once that is mended)"]
    steps = [f"{command} --show 3  (what the model will learn)"]
    if is_sweep:
        return [*steps, f"pharos plan {shlex.quote(target)}"]
    if not has_own:
        steps.append(f"{command} --base DIRECTORY  (tokens by your base's tokenizer)")
    return [*steps, f"name it in a sweep file, data: {{train: {target}}}, then pharos plan"]


def _because(report: CheckReport) -> str:
    stops, num_warnings = obstacles(report), len(warnings(report))
    if stops:
        return ": " + "; ".join(stops) + "."
    return f", with {words.plural(num_warnings, 'warning')}" if num_warnings else ": nothing was found"
