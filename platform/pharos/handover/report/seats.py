"""Who sat where, and when: a lane for each seat of each pool, over the time in which the sweep ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from pharos.handover.report import look
from pharos.handover.report.facts import SweepFacts
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.trial import BASELINE, repeat_of

LOST = "LOST"
"""Outcome of a stint whose pool died, or whose session ended: the trial waits for another seat."""
MOVED = "MOVED"
"""Outcome of a stint whose pool was sent home: the trial was saved, and goes on in another seat."""
MAX_LABELLED = 150
"""Stints up to which each carries its trial's number."""
MAX_HEIGHT = 1200
OUTCOMES = (*look.OUTCOMES, ("seat was lost", (LOST,), look.LOST), ("moved", (MOVED,), look.MOVED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stint:
    """One trial's time in one seat, in seconds since the sweep began; time between its sessions is left out."""

    number: int
    pool: str
    seat: int
    start_s: float
    end_s: float
    outcome: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """stints by start. losses: when a pool died. resumes: when a session began that was not the first. Seconds."""

    stints: Sequence[Stint]
    losses: Sequence[float]
    resumes: Sequence[float]
    total_s: float


def timeline(events: Iterable[ev.Event]) -> Timeline:
    """The stints of all trials. One whose end the log does not hold is RUNNING until the last event."""
    open_stints: dict[int, Stint] = {}
    done: list[Stint] = []
    losses: list[float] = []
    resumes: list[float] = []
    begun_s: float | None = None
    now_s = idle_s = 0.0

    def end(number: int, outcome: str, reason: str) -> None:
        if (stint := open_stints.pop(number, None)) is not None:
            done.append(replace(stint, end_s=now_s, outcome=outcome, reason=reason))

    for event in events:
        begun_s = event.time_s if begun_s is None else begun_s
        if isinstance(event, ev.SweepStarted) and event.resumed:
            for number in list(open_stints):
                end(number, LOST, "the session ended")
            idle_s = event.time_s - begun_s - now_s
            resumes.append(now_s)
        now_s = max(now_s, event.time_s - begun_s - idle_s)
        match event:
            case ev.TrialSeated():
                end(event.number, LOST, "it was seated again")
                open_stints[event.number] = Stint(
                    number=event.number,
                    pool=event.pool,
                    seat=event.seat,
                    start_s=now_s,
                    end_s=now_s,
                    outcome="RUNNING",
                )
            case ev.TrialEnded():
                end(event.number, event.state, event.reason)
            case ev.TrialUnseated():
                end(event.number, MOVED, event.reason)
            case ev.PoolLost():
                losses.append(now_s)
                for number in event.trials:
                    end(number, LOST, event.reason)
    done += [replace(stint, end_s=now_s) for stint in open_stints.values()]
    done.sort(key=lambda stint: (stint.start_s, stint.pool, stint.seat))
    return Timeline(stints=done, losses=losses, resumes=resumes, total_s=now_s)


def seat_timeline(facts: SweepFacts) -> go.Figure | None:
    """A bar for each stint, a lane for each seat; none where no trial was seated."""
    told = timeline(facts.events)
    if not told.stints:
        return None
    lanes = _lanes(facts)
    used = sorted({(stint.pool, stint.seat) for stint in told.stints})
    names = [_lane(lanes, *lane) for lane in used]
    traces: list[Any] = []
    for name, outcomes, color in OUTCOMES:
        if stints := [stint for stint in told.stints if stint.outcome in outcomes]:
            traces.append(_bars(facts, stints, f"{name} ({len(stints)})", color, lanes, told))
    traces += _outlines(facts, lanes, told)
    for name, moments, color in (("pool lost", told.losses, look.BROKEN), ("resumed", told.resumes, look.RUNNING)):
        if moments:
            traces.append(_moments(name, moments, color, names, told))
    return look.figure(
        traces,
        height=min(MAX_HEIGHT, 120 + max(14, 30 - len(used) // 8) * len(used)),
        x=_unit(told)[0],
        xaxis={"range": [0, told.total_s * 1.01 / _unit(told)[1] or 1]},
        barmode="overlay",
        bargap=0.25,
        yaxis={"categoryorder": "array", "categoryarray": names[::-1], "type": "category"},
        uniformtext={"mode": "hide", "minsize": 8},
    )


def _bars(
    facts: SweepFacts,
    stints: Sequence[Stint],
    name: str,
    color: str,
    lanes: Mapping[tuple[str, int], str],
    told: Timeline,
) -> go.Bar:
    return go.Bar(
        **_where(stints, lanes, told),
        name=name,
        text=[_short(stint.number) for stint in stints] if len(told.stints) <= MAX_LABELLED else None,
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        hovertext=[_told(facts, stint) for stint in stints],
        hovertemplate="%{hovertext}<extra></extra>",
        marker={"color": color, "line": {"color": "rgba(127,127,127,0.4)", "width": 1}},
    )


def _outlines(facts: SweepFacts, lanes: Mapping[tuple[str, int], str], told: Timeline) -> list[go.Bar]:
    """The baseline and the winner, told apart by their frames: their fill says how they ended."""
    best = facts.best.number if facts.best else None
    drawn = []
    for name, number, color in (("baseline", BASELINE, look.BASELINE), ("best", best, look.BEST)):
        stints = [stint for stint in told.stints if stint.number == number]
        if stints and facts.is_search and not (name == "baseline" and number == best):
            marker = {"color": "rgba(0,0,0,0)", "line": {"color": color, "width": 3}}
            drawn.append(go.Bar(**_where(stints, lanes, told), name=name, marker=marker, hoverinfo="skip"))
    return drawn


def _where(stints: Sequence[Stint], lanes: Mapping[tuple[str, int], str], told: Timeline) -> dict[str, Any]:
    """Place and length of bars; none is too short to be seen."""
    unit_s = _unit(told)[1]
    return {
        "base": [stint.start_s / unit_s for stint in stints],
        "x": [max(stint.end_s - stint.start_s, told.total_s / 2000) / unit_s for stint in stints],
        "y": [_lane(lanes, stint.pool, stint.seat) for stint in stints],
        "orientation": "h",
    }


def _moments(name: str, moments_s: Sequence[float], color: str, names: Sequence[str], told: Timeline) -> go.Scatter:
    """A line over all lanes for each moment."""
    across = [(moment_s / _unit(told)[1], lane) for moment_s in moments_s for lane in (names[0], names[-1], None)]
    return go.Scatter(
        x=[place if lane is not None else None for place, lane in across],
        y=[lane for _, lane in across],
        mode="lines",
        name=f"{name} ({len(moments_s)})",
        line={"color": color, "width": 2, "dash": "dot"},
        hovertemplate=f"{name}<extra></extra>",
    )


def _lanes(facts: SweepFacts) -> dict[tuple[str, int], str]:
    """What each lane is called: w0 s1 is seat 1 of worker 0. The pool stands before it where there are several."""
    opened = [event for event in facts.events if isinstance(event, ev.PoolOpened)]
    several = len({event.pool for event in opened}) > 1
    placement = (facts.started.spec.get("pool") or {}).get("placement", "local")
    lanes = {}
    for event in opened:
        per_worker = max(1, -(-event.num_seats // event.workers))
        for seat in range(event.num_seats):
            place = f"s{seat}" if placement != "local" else f"w{seat // per_worker} s{seat % per_worker}"
            lanes[event.pool, seat] = f"{look.text(event.pool)} {place}" if several else place
    return lanes


def _short(number: int) -> str:
    repeat = repeat_of(number)
    return words.short_trial(number) if repeat is None else f"{words.short_trial(repeat.of)}'{repeat.seed}"


def _lane(lanes: Mapping[tuple[str, int], str], pool: str, seat: int) -> str:
    return lanes.get((pool, seat), f"{look.text(pool)} s{seat}")


def _unit(told: Timeline) -> tuple[str, float]:
    """In what the axis counts, and how many seconds that is."""
    return ("minutes", 60.0) if told.total_s >= 300 else ("seconds", 1.0)


def _told(facts: SweepFacts, stint: Stint) -> str:
    when = f"{words.duration(stint.start_s)} to {words.duration(stint.end_s)}"
    reason = f": {stint.reason}" if stint.reason else ""
    outcome = {LOST: "lost its seat", MOVED: "moved"}.get(stint.outcome, stint.outcome)
    return f"{look.text(facts.trial_name(stint.number))}<br>{when}<br>{look.text(outcome + reason)}"
