"""Whether the winner is luck: the score of every contender under every further seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from pharos.handover.report import look
from pharos.handover.report.facts import SweepFacts
from pharos.plan import words
from pharos.plan.confirmation import by_mean
from pharos.plan.trial import BASELINE


def contenders_by_mean(facts: SweepFacts) -> list[Mapping[str, Any]]:
    """Those of the confirmation as `plan.confirmation.Contender.to_json` has them, the best mean first."""
    if facts.ledger.confirmation is None:
        return []
    return sorted(
        facts.ledger.confirmation.contenders,
        key=lambda one: by_mean(one["mean"], one["number"], metric=facts.metric),
    )


def repeated_scores(facts: SweepFacts) -> go.Figure | None:
    """A row for each contender: its scores under the further seeds, their mean and spread; none where none was."""
    contenders = contenders_by_mean(facts)[::-1]
    confirmation = facts.ledger.confirmation
    if confirmation is None or not any(contender["mean"] is not None for contender in contenders):
        return None
    names = {one["number"]: words.short_trial(one["number"]) for one in contenders}
    names[BASELINE] = "baseline"
    known = [one for one in contenders if one["mean"] is not None]
    seeds = [_seed(facts, names, contenders, index, seed) for index, seed in enumerate(confirmation.seeds)]
    colors = {BASELINE: look.BASELINE, confirmation.winner: look.BEST}
    means = go.Scatter(
        x=[one["mean"] for one in known],
        y=[names[one["number"]] for one in known],
        error_x={
            "type": "data",
            "array": [one["std"] or 0.0 for one in known],
            "thickness": 2,
            "width": 6,
            "color": look.PRUNED,
        },
        mode="markers",
        name="mean and standard deviation",
        marker={
            "size": 12,
            "symbol": "diamond",
            "color": [colors.get(one["number"], look.COMPLETED) for one in known],
        },
        hovertemplate="%{y}: mean %{x:.4f}<extra></extra>",
    )
    return look.figure(
        [*seeds, means],
        height=130 + 40 * len(contenders),
        x=facts.metric,
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": [names[c["number"]] for c in contenders]},
    )


def _seed(
    facts: SweepFacts, names: Mapping[int, str], contenders: Sequence[Mapping[str, Any]], index: int, seed: int
) -> go.Scatter:
    scored = [one for one in contenders if one["scores"][index] is not None]
    return go.Scatter(
        x=[one["scores"][index] for one in scored],
        y=[names[one["number"]] for one in scored],
        mode="markers",
        name="one seed",
        legendgroup="seeds",
        showlegend=index == 0,
        marker={"size": 8, "color": look.PRUNED, "symbol": "circle-open"},
        hovertemplate=f"%{{y}}, seed {seed}: {look.text(facts.metric)} %{{x:.4f}}<extra></extra>",
    )
