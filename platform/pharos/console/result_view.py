"""The end of a sweep: leaderboard, test rows, what was saved, where everything is, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pharos.plan import words
from pharos.plan.confirmation import by_mean
from pharos.plan.metrics import cost

NUM_LEADERS = 10


def show_result(
    result: dict[str, Any],
    *,
    root: str | None = None,
    report: str | None = None,
    model_dir: str | None = None,
    tracking_uri: str | None = None,
    options: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print a result as `plan.result.result_json` makes it.

    root: directory of the sweep; report: its page; model_dir: of the merged model; tracking_uri: of MLflow. What is
    none is left out. options: that later verbs need to find the sweep, such as --storage DIR.
    """
    console = console or Console(highlight=False)
    title = Text(result["sweep"], style="bold").append(f"  {result['state']}", style=_state_style(result["state"]))
    if result["reason"]:
        title.append(f": {result['reason']}", style="not bold")
    console.print(title, _leaderboard(result), "", *_verdict(result), sep="\n")
    if result["confirmation"]:
        console.print("", _confirmation(result), sep="\n")
    if any(result["test"].values()):
        console.print("", _test_rows(result), sep="\n")
    console.print("", Text(_work(result), style="dim"), "", sep="\n")
    _show_places(console, result, root=root, report=report, model_dir=model_dir, tracking_uri=tracking_uri)
    _show_next(console, result, options)


def _leaderboard(result: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("rank", "trial", result["metric"], "state", "steps", "chosen"):
        right = name in ("rank", result["metric"], "steps")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "chosen")
    scored = sorted(
        (trial for trial in result["trials"] if trial["score"] is not None),
        key=lambda trial: (cost(result["metric"], trial["score"]), trial["number"]),
    )
    unscored = [trial for trial in result["trials"] if trial["score"] is None]
    for rank, trial in enumerate(scored, start=1):
        is_baseline = trial["number"] == result["baseline"]
        if rank <= NUM_LEADERS or is_baseline:
            table.add_row(*_leader(trial, result["metric"], rank=str(rank), is_baseline=is_baseline))
    for trial in unscored[:NUM_LEADERS]:
        table.add_row(
            *_leader(trial, result["metric"], rank=words.NOTHING, is_baseline=trial["number"] == result["baseline"])
        )
    return table


def _leader(trial: dict[str, Any], metric: str, *, rank: str, is_baseline: bool) -> list[Text]:
    style = "bold green" if rank == "1" else "cyan" if is_baseline else ""
    chosen = ("baseline: " if is_baseline else "") + words.params(trial["params"])
    return [
        Text(rank),
        Text(words.short_trial(trial["number"]), style=style),
        Text(words.metric(metric, trial["score"]), style=style),
        Text(trial["state"], style="dim"),
        Text(f"{trial['steps']}/{trial['num_steps']}"),
        Text(chosen, style="cyan" if is_baseline else "dim"),
    ]


def _verdict(result: dict[str, Any]) -> list[Text]:
    """The winner against the baseline, said out loud where it is no better."""
    by_number = {trial["number"]: trial for trial in result["trials"]}
    best, baseline = by_number.get(result["best"]), by_number.get(result["baseline"])
    if best is None:
        return [Text("No trial has a score.", style="red")]
    if len(by_number) == 1 or baseline is None or baseline["score"] is None:
        return []
    if best is baseline:
        return [Text("No trial was better than the baseline: its own values are the winner.", style="yellow")]
    metric = result["metric"]
    lines = [
        Text(f"{best['name']} wins: {metric} {words.metric(metric, best['score'])} against ")
        + Text(f"{words.metric(metric, baseline['score'])} of the baseline{_lead(result, best, baseline)}")
    ]
    ours, theirs = (result["test"].get(name, {}).get("test_loss") for name in ("best", "baseline"))
    if ours is not None and theirs is not None and ours >= theirs:
        lines.append(
            Text(
                f"On test rows the winner is no better than the baseline: test_loss {words.score(ours)} against "
                f"{words.score(theirs)}. The lead on eval rows may be chance.",
                style="yellow",
            )
        )
    return lines


def _lead(result: dict[str, Any], best: dict[str, Any], baseline: dict[str, Any]) -> str:
    """How far ahead, of a loss in per cent of the baseline's; shares speak for themselves."""
    if result["higher_is_better"] or not baseline["score"]:
        return ""
    return f" ({1 - best['score'] / baseline['score']:.1%} lower)"


def _confirmation(result: dict[str, Any]) -> Table:
    """The contenders under further seeds, best on average first. difference, better: than the baseline."""
    confirmation = result["confirmation"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column(f"{len(confirmation['seeds'])} further seeds", no_wrap=True)
    for name in ("mean", "spread", "difference", "95% interval", "better"):
        table.add_column(name, justify="right", no_wrap=True)
    contenders = confirmation["contenders"]
    for one in sorted(contenders, key=lambda one: by_mean(one["mean"], one["number"], metric=result["metric"])):
        is_baseline, is_winner = one["number"] == result["baseline"], one["number"] == confirmation["winner"]
        interval, chance = one["interval"], one["probability_better"]
        table.add_row(
            Text(
                words.short_trial(one["number"]) + (" baseline" if is_baseline else ""),
                style="bold green" if is_winner else "cyan" if is_baseline else "",
            ),
            words.metric(result["metric"], one["mean"]),
            words.score(one["std"]),
            words.NOTHING if one["difference"] is None else f"{one['difference']:+.4f}",
            words.NOTHING if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
            words.NOTHING if chance is None else words.chance(chance),
        )
    return table


def _test_rows(result: dict[str, Any]) -> Table:
    test = result["test"]
    columns = [("winner", "best"), ("baseline", "baseline"), ("untrained base", "untrained_base")]
    if result["best"] == result["baseline"]:
        columns = columns[1:]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("test rows", no_wrap=True)
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for metric in sorted({metric for metrics in test.values() for metric in metrics}):
        table.add_row(
            metric, *(words.metric(metric, test.get(key, {}).get(metric)) for _, key in columns), style="not dim"
        )
    return table


def _work(result: dict[str, Any]) -> str:
    work, phases = result["work"], result["time"]["phases_s"]
    seconds = words.duration(sum(phases.values()) if phases else result["time"]["wall_s"])
    by_phase = ", ".join(f"{name} {words.duration(phase_s)}" for name, phase_s in phases.items())
    told = [
        f"{work['steps']:,} of {work['steps_full_length']:,} steps run, "
        f"{work['steps_saved']:.0%} saved by stopping early",
        f"{words.count(work['num_tokens'])} trained tokens",
        f"seats {work['occupancy']:.0%} used",
        f"{seconds} ({by_phase})" if by_phase else seconds,
    ]
    return "; ".join(told)


def _show_places(
    console: Console,
    result: dict[str, Any],
    *,
    root: str | None,
    report: str | None,
    model_dir: str | None,
    tracking_uri: str | None,
) -> None:
    """Paths and commands stand on lines of their own and are never broken, so that they can be copied."""

    def show(name: str, *lines: str) -> None:
        for index, line in enumerate(lines):
            console.print(Text(f"{name if index == 0 else '':<10}", style="dim") + Text(line), soft_wrap=True)

    registered = result["registered"]
    if registered:
        show("model", f"{registered['model']} version {registered['version']}, alias {registered['alias']}")
    if root is not None:
        show("results", f"{root}/result.json")
    if report is not None:
        show("report", report)
    if tracking_uri is not None:
        show("tracking", tracking_uri)
    if model_dir is not None and registered:
        show(
            "use it",
            "from transformers import AutoModelForCausalLM",
            f'model = AutoModelForCausalLM.from_pretrained("{model_dir}")',
        )


def _show_next(console: Console, result: dict[str, Any], options: Sequence[str]) -> None:
    """What to type next, ready to be copied."""
    commands = [["compare", result["sweep"]], ["ui"]]
    if result["registered"]:
        model = result["registered"]["model"]
        commands += [["chat", f"{model}@{result['registered']['alias']}"], ["promote", model]]
    for index, command in enumerate(commands):
        text = shlex.join(["pharos", *command, *options])
        console.print(Text(f"{'next' if index == 0 else '':<10}", style="dim") + Text(text), soft_wrap=True)


def _state_style(state: str) -> str:
    return {"COMPLETED": "green", "FAILED": "red"}.get(state, "yellow")
