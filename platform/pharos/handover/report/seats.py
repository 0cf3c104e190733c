"""Who sat where, and when: a lane for each seat of each pool, over the time in which the sweep ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from pharos.handover.report import look
from pharos.handover.report.facts import SweepFacts
from pharos.plan import events as ev
from pharos.plan import words
from pharos.plan.trial import BASELINE, repeat_of

LOST = "LOST"
"""Outcome of a stint whose pool died, or whose session ended: the trial waits for another seat."""
MAX_LABELLED = 150
"""Stints up to which each carries its trial's number."""
MAX_HEIGHT = 1200

OUTCOMES = (
    ("completed", ("COMPLETED",), look.COMPLETED),
    ("stopped at a rung", ("PRUNED",), look.PRUNED),
    ("stopped", ("STOPPED",), look.STOPPED),
    ("diverged or failed", ("DIVERGED", "FAILED"), look.BROKEN),
    ("seat was lost", (LOST,), "#c9b458"),
    ("still running", ("RUNNING",), look.RUNNING),
)


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
    names = [lanes.get(lane, f"{look.text(lane[0])} s{lane[1]}") for lane in used]
    traces = []
    for name, outcomes, color in OUTCOMES:
        stints = [stint for stint in told.stints if stint.outcome in outcomes]
        if stints:
            traces.append(_bars(facts, stints, f"{name} ({len(stints)})", color, lanes, told))
    drawn = look.figure(
        traces,
        height=min(MAX_HEIGHT, 120 + max(14, 30 - len(used) // 8) * len(used)),
        x="minutes" if told.total_s >= 300 else "seconds",
        xaxis={"range": [0, told.total_s * 1.01 / _unit_s(told) or 1]},
        barmode="overlay",
        bargap=0.25,
        yaxis={"categoryorder": "array", "categoryarray": names[::-1], "type": "category"},
        uniformtext={"mode": "hide", "minsize": 8},
    )
    for moment_s, label in [*((s, "pool lost") for s in told.losses), *((s, "resumed") for s in told.resumes)]:
        drawn.add_vline(
            x=moment_s / _unit_s(told), line={"dash": "dot", "width": 1, "color": look.BROKEN}, annotation_text=label
        )
    return drawn


def _bars(
    facts: SweepFacts,
    stints: Sequence[Stint],
    name: str,
    color: str,
    lanes: dict[tuple[str, int], str],
    told: Timeline,
) -> go.Bar:
    best = facts.best.number if facts.best else None
    marks = {BASELINE: look.BASELINE} | ({best: look.BEST} if best is not None else {})
    return go.Bar(
        base=[stint.start_s / _unit_s(told) for stint in stints],
        x=[max(stint.end_s - stint.start_s, told.total_s / 2000) / _unit_s(told) for stint in stints],
        y=[lanes.get((stint.pool, stint.seat), f"{look.text(stint.pool)} s{stint.seat}") for stint in stints],
        orientation="h",
        name=name,
        text=[_short(stint.number) for stint in stints] if len(told.stints) <= MAX_LABELLED else None,
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        hovertext=[_told(facts, stint) for stint in stints],
        hovertemplate="%{hovertext}<extra></extra>",
        marker={
            "color": color,
            "line": {
                "color": [marks.get(stint.number, "rgba(127,127,127,0.4)") for stint in stints],
                "width": [3 if stint.number in marks else 1 for stint in stints],
            },
        },
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


def _unit_s(told: Timeline) -> float:
    return 60.0 if told.total_s >= 300 else 1.0


def _told(facts: SweepFacts, stint: Stint) -> str:
    when = f"{words.duration(stint.start_s)} to {words.duration(stint.end_s)}"
    role = {BASELINE: " (baseline)"}.get(stint.number, "")
    reason = f": {stint.reason}" if stint.reason else ""
    outcome = "lost its seat" if stint.outcome == LOST else stint.outcome
    return f"{look.text(facts.trial_name(stint.number))}{role}<br>{when}<br>{look.text(outcome + reason)}"
