"""The seat timeline: when each trial sat where, also through a lost pool and a new session."""

from __future__ import annotations

from dataclasses import replace

from tests.support.simulated_sweep import Happening, simulated_spec, simulated_sweep

from pharos.handover.report.seats import Stint, seat_timeline, timeline
from pharos.plan import events as ev


def started(*, resumed: bool = False) -> ev.SweepStarted:
    return ev.SweepStarted(
        sweep="toy", spec={}, digests={}, versions={}, num_trials=2, metric="eval_loss", resumed=resumed
    )


def seated(number: int, seat: int = 0) -> ev.TrialSeated:
    return ev.TrialSeated(number=number, pool="pool-0", seat=seat, resumed_step=0)


def ended(number: int, state: str = "COMPLETED") -> ev.TrialEnded:
    return ev.TrialEnded(number=number, state=state, reason="done", score=0.5, step=10)


def at(*timed: tuple[float, ev.Event]) -> list[ev.Event]:
    return [replace(event, time_s=1000.0 + time_s, sequence=index) for index, (time_s, event) in enumerate(timed)]


def brief(stint: Stint) -> tuple[int, float, float, str]:
    return stint.number, stint.start_s, stint.end_s, stint.outcome


def test_a_stint_lasts_from_seating_to_the_end_of_the_trial() -> None:
    told = timeline(at((0, started()), (2, seated(0)), (3, seated(1, seat=1)), (7, ended(1, "PRUNED")), (9, ended(0))))
    assert [brief(stint) for stint in told.stints] == [(0, 2, 9, "COMPLETED"), (1, 3, 7, "PRUNED")]
    assert told.stints[1].seat == 1
    assert told.total_s == 9


def test_a_trial_that_the_log_leaves_seated_is_running_up_to_the_last_event() -> None:
    told = timeline(at((0, started()), (1, seated(0)), (1, seated(1, seat=1)), (6, ended(1))))
    assert (0, 1, 6, "RUNNING") in [brief(stint) for stint in told.stints]


def test_a_lost_pool_ends_the_stints_of_its_trials_and_they_sit_again() -> None:
    lost = ev.PoolLost(pool="pool-0", reason="a worker died", trials=(0,))
    told = timeline(at((0, started()), (1, seated(0)), (4, lost), (6, seated(0, seat=2)), (9, ended(0))))
    assert [brief(stint) for stint in told.stints] == [(0, 1, 4, "LOST"), (0, 6, 9, "COMPLETED")]
    assert told.stints[0].reason == "a worker died"
    assert list(told.losses) == [4]


def test_time_between_sessions_is_left_out() -> None:
    told = timeline(
        at((0, started()), (1, seated(0)), (5, seated(1, seat=1)), (905, started(resumed=True)), (907, seated(0)))
    )
    assert [brief(stint) for stint in told.stints] == [(0, 1, 5, "LOST"), (1, 5, 5, "LOST"), (0, 7, 7, "RUNNING")]
    assert list(told.resumes) == [5]
    assert told.total_s == 7


def test_the_figure_has_a_lane_for_each_used_seat_and_a_bar_for_each_stint(facts_of) -> None:
    happening = Happening(diverging=frozenset({5}), lost_at=frozenset({3}), resumed_at=frozenset({6}))
    facts = facts_of(simulated_sweep(simulated_spec(12), happening=happening))
    figure = seat_timeline(facts)
    bars = [trace for trace in figure.data if trace.type == "bar" and trace.name not in ("baseline", "best")]
    assert sum(len(trace.x) for trace in bars) == len(timeline(facts.events).stints)
    lanes = [f"w{worker} s{seat}" for worker in (0, 1) for seat in range(4)]
    assert list(figure.layout.yaxis.categoryarray) == lanes[::-1], "the first on top"
    names = [trace.name for trace in figure.data]
    assert "diverged or failed (1)" in names
    assert names[-4:] == ["baseline", "best", "pool lost (1)", "resumed (1)"]
    texts = [text for trace in bars for text in trace.hovertext]
    assert any(text.startswith("simulated-0005<br>") and "DIVERGED: the loss is not finite" in text for text in texts)


def test_one_trial_over_all_workers_has_a_lane_without_a_worker(facts_of) -> None:
    spec = simulated_spec(1, pool={"workers": 2, "seats_per_worker": 1, "placement": "data_parallel"})
    figure = seat_timeline(facts_of(simulated_sweep(spec)))
    assert list(figure.layout.yaxis.categoryarray) == ["s0"]


def test_a_repeat_under_a_further_seed_is_named_by_its_trial(facts_of) -> None:
    spec = simulated_spec(2)
    events = simulated_sweep(spec, happening=Happening(stop_at=1))
    number = 1_000_000 + 100 * 1 + 2
    created = next(event for event in events if isinstance(event, ev.TrialCreated) and event.number == 1)
    repeat = replace(created, number=number, trial=created.trial | {"number": number})
    last = events[-1].time_s
    events += [replace(repeat, time_s=last), replace(seated(number, seat=7), time_s=last)]
    figure = seat_timeline(facts_of(events))
    assert "0001'2" in [text for trace in figure.data for text in trace.text or ()]
