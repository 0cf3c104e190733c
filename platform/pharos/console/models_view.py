"""Registered models for a person: their versions, the lineage of one, what a promotion or a roll-back came to."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pharos.plan import words
from pharos.plan.registered import ListedModel, ListedVersion
from pharos.plan.trial import trial_name

if TYPE_CHECKING:
    from pharos.plan.promotion import Outcome

ALIAS_STYLES = {"champion": "bold green", "candidate": "cyan"}
METRICS_SHOWN = ("eval_loss", "test_loss", "test_exact_match")
DIGESTS = ("spec", "data", "base", "tokenizer", "adapter", "environment")


@contextmanager
def told(console: Console | None = None) -> Iterator[Callable[[str], None]]:
    """What a verb is at, in one line that vanishes on a terminal; without one nothing is written."""
    console = console or Console(highlight=False, stderr=True)
    with console.status("starting") as status:
        yield lambda text: status.update(Text(text))


def show_promotion(outcome: Outcome, *, options: Sequence[str] = (), console: Console | None = None) -> None:
    """What came of it, with the figures, where it is and what to type next."""
    console = console or Console(highlight=False)
    _say(console, *outcome.settled)
    name = f"{outcome.model} version {outcome.version}"
    if outcome.is_champion and outcome.before == outcome.version:
        _say(console, Text(f"{name} is the champion already: there is nothing to do.", style="green"))
        return
    if not outcome.is_champion:
        _say(console, Text(f"{name} is not promoted.", style="bold red"), Text(f"  {outcome.reason}"))
        _say(console, f"Nothing was changed: version {outcome.champion} stays the champion.")
        _next(
            console,
            options,
            ("not worse by", ["promote", f"{outcome.model}/{outcome.version}", "--margin", "LOSS"]),
            ("all the same", ["promote", f"{outcome.model}/{outcome.version}", "--force", "--reason", "TEXT"]),
        )
        return
    how = " by force" if outcome.forced else ""
    was = f", version {outcome.before} is previous" if outcome.before else ""
    _say(console, Text(f"{name} is the champion{how}{was}.", style="bold green"), Text(f"  {outcome.reason}"))
    _next(
        console,
        options,
        ("use it", ["chat", f"{outcome.model}@champion"]),
        *([("go back", ["rollback", outcome.model])] if outcome.before else []),
    )


def show_rollback(outcome: Outcome, *, options: Sequence[str] = (), console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    _say(console, *outcome.settled)
    was = f", version {outcome.before} is previous" if outcome.before else ""
    said = f"{outcome.model} version {outcome.version} is the champion again{was}."
    _say(console, Text(said, style="bold green"), Text(f"  {outcome.reason}"))
    _next(
        console,
        options,
        ("use it", ["chat", f"{outcome.model}@champion"]),
        ("see all", ["models", outcome.model]),
    )


def show_models(
    models: Sequence[ListedModel],
    *,
    options: Sequence[str] = (),
    is_detailed: bool = False,
    console: Console | None = None,
) -> None:
    """A table of versions for each model. is_detailed: with the moves of the champion."""
    console = console or Console(highlight=False)
    if not models:
        _say(console, "There is no registered model yet: `pharos sweep` registers its winner.")
        return
    for model in models:
        console.print(Text(model.name, style="bold"), _versions(model), sep="\n")
        if is_detailed and model.moves:
            console.print("", Text("moves of the champion, the last first", style="dim"), sep="\n")
            for move in reversed(model.moves):
                console.print(_move(move), soft_wrap=True)
        for version in model.versions:
            if "champion" in version.aliases and not is_detailed:
                console.print(
                    Text(f"champion since {_promoted(version) or 'an unknown time'}", style="dim"), soft_wrap=True
                )
        for text in model.under_way:
            console.print(Text(text, style="yellow"), soft_wrap=True)
        console.print()
    first = models[0]
    _next(
        console,
        options,
        *([("where it is from", ["models", f"{first.name}/{first.versions[0].version}"])] if first.versions else []),
        ("promote", ["promote", first.name]),
    )


def show_version(
    version: ListedVersion, *, files: str, options: Sequence[str] = (), console: Console | None = None
) -> None:
    """All that a version comes from, and what can be done with it. files: URI of its run's artifacts."""
    console = console or Console(highlight=False)
    reference = f"{version.model}/{version.version}"
    origin, digests, versions = version.group("origin"), version.group("digest"), version.group("version")
    trial = None if version.sweep is None or version.trial is None else trial_name(version.sweep, version.trial)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    revision = f" at {origin['revision']}" if "revision" in origin else ""
    lines = {
        "aliases": ", ".join(version.aliases),
        "registered": version.created,
        "trial": trial or "",
        "sweep": version.sweep or "",
        "storage": origin.get("storage", ""),
        "metrics": ", ".join(f"{name} {_measured(name, value)}" for name, value in version.metrics.items()),
        "base": origin.get("base", "") + revision,
        "base lies in": origin.get("base_directory", ""),
        **{f"{name} digest": digests[name] for name in DIGESTS if name in digests},
        "code": origin.get("code", ""),
        "libraries": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "promoted": _promoted(version),
        "files": f"{files}: merged/, adapter/" + (", spec.json, environment.txt" if "environment" in digests else ""),
    }
    for name, value in lines.items():
        if value:
            table.add_row(name, value)
    console.print(Text(reference, style="bold"), table, sep="\n", soft_wrap=False)
    _next(
        console,
        options,
        *([("train again", ["rerun", trial])] if trial else []),
        ("evaluate", ["eval", reference, f"{version.sweep}:test" if version.sweep else "ROWS.jsonl"]),
        ("talk to it", ["chat", reference]),
        ("promote", ["promote", reference]),
    )


def _versions(model: ListedModel) -> Table:
    names = [name for name in METRICS_SHOWN if any(name in version.metrics for version in model.versions)]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("version", justify="right", no_wrap=True)
    table.add_column("aliases", min_width=max(map(len, ("candidate", "champion", "previous"))))
    for name in names:
        table.add_column(name.removeprefix("test_exact_"), justify="right", no_wrap=True)
    table.add_column("trial", no_wrap=True)
    table.add_column("registered", no_wrap=True)
    for version in model.versions:
        trial = "" if version.sweep is None or version.trial is None else trial_name(version.sweep, version.trial)
        state = "" if version.status == "READY" else f" ({version.status.lower()})"
        table.add_row(
            version.version + state,
            _aliases(version.aliases),
            *(words.metric(name, version.metrics.get(name)) for name in names),
            trial or words.NOTHING,
            version.created[:16].replace("T", " "),
        )
    return table


def _aliases(aliases: Sequence[str]) -> Text:
    parts = [Text(alias, style=ALIAS_STYLES.get(alias, "")) for alias in aliases]
    return Text(" ").join(parts) if parts else Text(words.NOTHING, style="dim")


def _measured(name: str, value: float) -> str:
    return f"{value:.2g}" if name == "parity" else words.metric(name, value)


def _promoted(version: ListedVersion) -> str:
    told_of = version.group("promoted")
    if not told_of:
        return ""
    return f"{told_of.get('at')} by {told_of.get('by')} ({told_of.get('how')}): {told_of.get('why')}"


def _move(move: Mapping[str, object]) -> Text:
    before = f"from {move['before']}" if move["before"] else "the first"
    how = "forced" if move["forced"] else str(move["kind"])
    text = Text(f"  {move['when']}  to {move['to']}, {before}  ").append(how, style="dim")
    return text.append(f"  by {move['who']}: {move['why']}")


def _say(console: Console, *lines: Text | str) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _next(console: Console, options: Sequence[str], *commands: tuple[str, list[str]]) -> None:
    """What to type next, ready to be copied."""
    width = max((len(name) for name, _ in commands), default=0)
    for name, command in commands:
        line = Text(name.ljust(width + 2), style="dim").append(
            shlex.join(["pharos", *command, *options]), style="not dim"
        )
        console.print(line, soft_wrap=True)
