"""What `pharos compare` prints: the leaderboard of one or more sweeps, what decided it, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pharos.plan import words
from pharos.plan.comparison import ComparedSweep, ComparedTrial, Comparison
from pharos.plan.paired import PairedDifference

WIDE = 110
"""Columns from which tokens, time and cost are shown too."""
BAR, BAR_WIDTH = "█", 20
PARTS = " ▏▎▍▌▋▊▉"
STATE_STYLES = {"COMPLETED": "green", "FAILED": "red"}


def show_comparison(
    comparison: Comparison,
    trials: Sequence[ComparedTrial],
    *,
    num_wanted: int,
    importance: Mapping[str, Mapping[str, float]],
    next_steps: Sequence[str],
    console: Console | None = None,
) -> None:
    """Print the trials that were asked for.

    num_wanted: trials that passed the filters; those beyond `trials` are counted. importance: by a sweep's label, then
    by dotted field. next_steps: commands.
    """
    console = console or Console(highlight=False)
    for sweep in comparison.sweeps:
        console.print(_title(sweep), soft_wrap=True)
    console.print("")
    if trials:
        console.print(_leaderboard(comparison, trials, is_wide=console.width >= WIDE))
    else:
        console.print(Text("No trial passes the filters." if num_wanted == 0 else "No trial.", style="yellow"))
    for line in _left_out(comparison, trials, num_wanted):
        console.print(Text(line, style="dim"), soft_wrap=True)
    for sweep in comparison.sweeps:
        if importance.get(sweep.label):
            of_sweep = f" in {sweep.label}" if len(comparison.sweeps) > 1 else ""
            console.print("", Text(f"what sets the best trials apart{of_sweep}", style="dim"), sep="\n")
            console.print(_bars(importance[sweep.label]))
    console.print("")
    for remark in _remarks(comparison):
        console.print(Text(f"note:    {remark}", style="yellow"), soft_wrap=True)
    for step in next_steps:
        console.print(Text(f"next:    {step}"), soft_wrap=True)


def _title(sweep: ComparedSweep) -> Text:
    title = Text(sweep.label, style="bold")
    title.append(f"  {sweep.state}", style=STATE_STYLES.get(sweep.state, "yellow"))
    told = [sweep.reason] if sweep.reason else []
    told.append(words.plural(len(sweep.trials), "trial"))
    if sweep.repeats_share:
        told.append(f"{sweep.repeats_share:.0%} of the cost for repeats under further seeds")
    title.append(": " + ", ".join(told), style="not bold")
    if not sweep.label.endswith(f"({sweep.source})"):
        title.append(f"  {sweep.source}", style="dim not bold")
    return title


def _leaderboard(comparison: Comparison, trials: Sequence[ComparedTrial], *, is_wide: bool) -> Table:
    has_sweeps = len(comparison.sweeps) > 1
    has_repeats = any(trial.repeated for trial in comparison.trials)
    has_cost = is_wide and any(trial.cost_share is not None for trial in trials)
    columns = ["rank", *(["sweep"] if has_sweeps else []), "trial", comparison.metric, "to the baseline"]
    columns += ["over seeds"] if has_repeats else []
    columns += ["state", "best at", "steps", *(["tokens", "time"] if is_wide else []), *(["cost"] if has_cost else [])]
    columns += ["chosen"]
    left = ("sweep", "trial", "over seeds", "state", "chosen")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=name != "chosen")
    for trial in trials:
        cells = _cells(trial, comparison.metric)
        table.add_row(*(cells["metric" if name == comparison.metric else name] for name in columns))
    return table


def _cells(trial: ComparedTrial, metric: str) -> dict[str, Text]:
    facts = trial.facts
    style = "bold green" if trial.is_winner else "cyan" if trial.is_baseline else ""
    chosen = ("baseline: " if trial.is_baseline else "") + words.params(facts.params)
    return {
        "rank": Text(words.NOTHING if trial.rank is None else str(trial.rank)),
        "sweep": Text(trial.sweep, style="dim"),
        "trial": Text(words.short_trial(facts.number), style=style),
        "metric": Text(words.metric(metric, facts.score), style=style),
        "to the baseline": Text(words.NOTHING if trial.difference is None else f"{trial.difference:+.4f}"),
        "over seeds": Text(words.NOTHING if trial.repeated is None else _over_seeds(trial.repeated, trial.num_repeats)),
        "state": Text(facts.state, style="dim"),
        "best at": Text(words.NOTHING if facts.best_step is None else f"{facts.best_step:,}"),
        "steps": Text(f"{words.NOTHING if facts.steps is None else f'{facts.steps:,}'}/{facts.num_steps:,}"),
        "tokens": Text(words.count(facts.num_tokens)),
        "time": Text(words.NOTHING if facts.seat_s is None else words.duration(facts.seat_s)),
        "cost": Text(words.NOTHING if trial.cost_share is None else f"{trial.cost_share:.1%}"),
        "chosen": Text(chosen, style="cyan" if trial.is_baseline else "dim"),
    }


def _over_seeds(repeated: PairedDifference, num_repeats: int) -> str:
    if repeated.interval is None:
        return f"{repeated.mean:+.4f} (one seed)"
    low, high = repeated.interval
    return f"{repeated.mean:+.4f} ({low:+.4f} to {high:+.4f}, {num_repeats} seeds)"


def _left_out(comparison: Comparison, trials: Sequence[ComparedTrial], num_wanted: int) -> list[str]:
    """What the table does not show: trials beyond the first, and those that the filters left out."""
    lines = []
    if num_wanted > len(trials):
        lines.append(f"{words.plural(num_wanted - len(trials), 'more trial')}: --top {num_wanted} shows them all")
    left_out = len(comparison.trials) - num_wanted
    if left_out:
        lines.append(f"{words.plural(left_out, 'trial')} left out by the filters")
    return lines


def _bars(importance: Mapping[str, float]) -> Table:
    """A line for each field, its bar as long as its share."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for field, share in importance.items():
        eighths = round(share * BAR_WIDTH * 8)
        bar = BAR * (eighths // 8) + PARTS[eighths % 8].strip()
        table.add_row(Text(field), Text(bar.ljust(BAR_WIDTH), style="cyan"), f"{share:.0%}")
    return table


def _remarks(comparison: Comparison) -> list[str]:
    """What makes scores of several sweeps hard to compare."""
    by_data: dict[str, list[str]] = {}
    for sweep in comparison.sweeps:
        if "data" in sweep.digests:
            by_data.setdefault(sweep.digests["data"], []).append(sweep.label)
    if len(by_data) < 2:
        return []
    groups = "; ".join(", ".join(labels) for labels in by_data.values())
    return [f"these sweeps were prepared from different data, so their scores may be of different rows: {groups}"]
