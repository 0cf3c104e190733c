"""The page itself: facts, figures and words through one template, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pharos.errors import StorageError
from pharos.handover.report import confirmation, curves, headline, onward, rungs, seats, space, tables
from pharos.handover.report.facts import SweepFacts, sweep_facts
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.ledger import Ledger
from pharos.plan.metrics import EVAL_LOSS

PACKAGE = "pharos.handover.report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with what it shows. absent: what stands in its place where there is nothing to draw. min_width: pixels
    that it needs; where a phone has fewer, it scrolls by itself."""

    name: str
    title: str
    shows: str
    drawn: go.Figure | None
    absent: str
    min_width: int = 0


def write_report(
    path: Path, *, events: Sequence[ev.Event], ledger: Ledger, importance: Mapping[str, float], sweep_dir: Path
) -> None:
    """Write the page of a sweep, finished or not.

    events, ledger: the whole log, and the fold over it. importance: dotted field -> its share, {} where it is not
    known. sweep_dir: what the page names as the sweep's directory. Raises StorageError where the log holds no sweep,
    and where `path` cannot be written.
    """
    text = report_html(sweep_facts(events, ledger), importance, sweep_dir=sweep_dir)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: the report cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def report_html(facts: SweepFacts, importance: Mapping[str, float], *, sweep_dir: Path) -> str:
    """The page as text. All that it needs is in it: it loads nothing."""
    shown = figures(facts, importance)
    environment = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.jinja").render(
        facts=facts,
        headline=headline,
        tables=tables,
        onward=onward,
        sweep_dir=sweep_dir,
        figures={figure.name: figure for figure in shown},
        data=_embedded({figure.name: figure.drawn for figure in shown if figure.drawn is not None}),
        plotly=Markup(get_plotlyjs()),
        style=Markup(_own("report.css")),
        script=Markup(_own("report.js")),
    )


def figures(facts: SweepFacts, importance: Mapping[str, float]) -> list[Figure]:
    """All figures of the page, in its order."""
    return [
        Figure(
            name="curves",
            title="Learning curves",
            shows=f"{facts.metric} of every trial at each of its evaluations. The large dot is the one that scores it."
            + _without_curve(facts),
            drawn=curves.learning_curves(facts, facts.metric, facts.evaluations),
            absent="No trial has been evaluated yet.",
        ),
        *_loss_curves(facts),
        Figure(
            name="against",
            title="Best against baseline",
            shows="Thick: evaluations. Thin: training loss, means of neighbouring steps where there are many.",
            drawn=curves.against_baseline(facts),
            absent="There are not two curves to compare: the baseline is the best trial, or one of them has no "
            "evaluation.",
        ),
        Figure(
            name="confirmation",
            title="Confirmation under further seeds",
            shows=f"{facts.metric} of the best trials and the baseline, trained again under the same further seeds. "
            "These took no part in the choice of the contenders.",
            drawn=confirmation.repeated_scores(facts),
            absent="The winner was not confirmed: search.confirm trains the best and the baseline again under further "
            "seeds.",
        ),
        Figure(
            name="coordinates",
            title="Parallel coordinates",
            shows="Each line is a trial, the best in green. Drag along an axis to see only the trials of that range.",
            drawn=space.parallel_coordinates(facts),
            absent="Nothing was searched, or fewer than two trials have a score.",
            min_width=space.AXIS_WIDTH * (len(facts.space) + 1),
        ),
        Figure(
            name="importance",
            title="Importance",
            shows="How much each searched field sets the best trials apart from the others, by PED-ANOVA.",
            drawn=space.importance_bars(importance),
            absent="Too few trials have a score to tell which field decided.",
        ),
        Figure(
            name="rungs",
            title="Rung decisions",
            shows="Trials are compared at equal numbers of their micro-batches; the weak stop there. The baseline "
            "always goes on. Point at a mark for the reason.",
            drawn=rungs.rung_decisions(facts),
            absent="No rung was reached: the sweep has no halving, one trial, or has only begun.",
        ),
        Figure(
            name="seats",
            title="Seat timeline",
            shows="Who sat where, and when: a lane for each seat (w0 s1 is seat 1 of worker 0), a bar for each trial. "
            "Outlined in green: the best; in orange: the baseline. Time between sessions is left out.",
            drawn=seats.seat_timeline(facts),
            absent="No trial has been seated yet.",
        ),
    ]


def _loss_curves(facts: SweepFacts) -> list[Figure]:
    """Of a sweep that is steered by generated answers: those are asked for at rungs and at the end alone."""
    if facts.metric == EVAL_LOSS:
        return []
    return [
        Figure(
            name="losses",
            title="Loss curves",
            shows=f"{EVAL_LOSS} of every trial, which is evaluated more often than {facts.metric}.",
            drawn=curves.learning_curves(facts, EVAL_LOSS, facts.losses),
            absent="No trial has a loss yet.",
        )
    ]


def _without_curve(facts: SweepFacts) -> str:
    missing = sum(not points for points in facts.evaluations.values())
    return f" Without any that is finite, and so without a curve: {words.plural(missing, 'trial')}." if missing else ""


def _embedded(drawn: Mapping[str, go.Figure]) -> Markup:
    """Figures as JSON that can stand in a script element, whatever texts they hold."""
    text = json.dumps(
        {name: json.loads(figure.to_json()) for name, figure in drawn.items()}, separators=(",", ":"), allow_nan=False
    )
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _own(name: str) -> str:
    return files(PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
