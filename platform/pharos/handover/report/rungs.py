"""What halving decided: every score at every rung, who went on and who was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite

import plotly.graph_objects as go

from pharos.handover.report import look
from pharos.handover.report.facts import SweepFacts, is_wide
from pharos.plan import events as ev
from pharos.plan.metrics import EVAL_LOSS, cost
from pharos.plan.trial import BASELINE

SPREAD = 0.6
"""How wide the dots of one rung are laid out, where rungs are 1 apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One rung in sum. best, last_on: the best score, and the worst of those that went on by their rank."""

    clocks: int
    compared: int
    went_on: int
    stopped: int
    best: float | None
    last_on: float | None


def rungs_in_sum(decisions: Sequence[ev.RungDecided], metric: str = EVAL_LOSS) -> list[Rung]:
    """Ascending by clocks. metric: what was ranked by, which says whether lower is better."""
    found = []
    by_cost = partial(cost, metric)
    for clocks in sorted({decision.rung for decision in decisions}):
        here = [decision for decision in decisions if decision.rung == clocks]
        finite = [decision.score for decision in here if isfinite(decision.score)]
        on = [d.score for d in here if not d.stopped and d.number != BASELINE and isfinite(d.score)]
        stopped = sum(decision.stopped for decision in here)
        found.append(
            Rung(
                clocks=clocks,
                compared=len(here),
                went_on=len(here) - stopped,
                stopped=stopped,
                best=min(finite, key=by_cost, default=None),
                last_on=max(on, key=by_cost, default=None),
            )
        )
    return found


def rung_decisions(facts: SweepFacts) -> go.Figure | None:
    """A dot for each score at each rung, with the reason; none where no rung was reached."""
    decisions = [decision for decision in facts.ledger.decisions if isfinite(decision.score)]
    if not decisions:
        return None
    rungs = sorted({decision.rung for decision in decisions})
    best = facts.best.number if facts.best else None
    kinds = (
        ("stopped", look.PRUNED, "x", [d for d in decisions if d.stopped and d.number not in (BASELINE, best)]),
        ("went on", look.COMPLETED, "circle", [d for d in decisions if _went_on(d, best)]),
        ("baseline", look.BASELINE, "diamond", [d for d in decisions if d.number == BASELINE != best]),
        ("best", look.BEST, "star", [d for d in decisions if d.number == best]),
    )
    scatter = go.Scattergl if len(decisions) > 2000 else go.Scatter
    traces = [
        scatter(
            x=[rungs.index(decision.rung) + _aside(decision.number) for decision in made],
            y=[decision.score for decision in made],
            text=[_told(facts, decision) for decision in made],
            name=f"{name} ({len(made)})" if name in ("stopped", "went on") else name,
            mode="markers",
            marker={"color": color, "symbol": symbol, "size": 12 if name in ("baseline", "best") else 7},
            hovertemplate="%{text}<extra></extra>",
        )
        for name, color, symbol, made in kinds
        if made
    ]
    return look.figure(
        traces,
        height=380,
        y=facts.metric,
        xaxis={
            "tickvals": list(range(len(rungs))),
            "ticktext": [f"{clocks:,} clocks" for clocks in rungs],
            "range": [-0.5, len(rungs) - 0.5],
        },
        yaxis={"type": "log" if is_wide([decision.score for decision in decisions]) else "linear"},
    )


def _went_on(decision: ev.RungDecided, best: int | None) -> bool:
    return not decision.stopped and decision.number not in (BASELINE, best)


def _aside(number: int) -> float:
    return (look.evenly(number) - 0.5) * SPREAD


def _told(facts: SweepFacts, decision: ev.RungDecided) -> str:
    verdict = "stopped" if decision.stopped else "went on"
    return f"{look.text(facts.trial_name(decision.number))} {verdict}<br>{look.text(decision.reason)}"
