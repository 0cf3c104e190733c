"""Whatever goes, and whenever: each trial is trained once, from its first step to its last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from tests.support.desk_chaos import NUM_STEPS, NUM_TRIALS, Chaos

from pharos.plan.events import Event, TrialCreated, TrialEnded, TrialReported, TrialSeated
from pharos.plan.ledger import Ledger

SEEDS = 40


def faults(events: Sequence[Event]) -> list[str]:
    """What is wrong with the log of a sweep of complete trials."""
    found = []
    ends = Counter(event.number for event in events if isinstance(event, TrialEnded))
    created = Counter(event.number for event in events if isinstance(event, TrialCreated))
    steps = {number: list[int]() for number in range(NUM_TRIALS)}
    ledger = Ledger()
    for event in events:
        if isinstance(event, TrialSeated) and ledger.trials[event.number].state == "RUNNING":
            found.append(f"{event.sequence}: trial {event.number} sits in two seats")
        if isinstance(event, TrialReported):
            steps[event.number] += [step["step"] for step in event.steps]
        ledger.apply(event)
    for number in range(NUM_TRIALS):
        if (created[number], ends[number]) != (1, 1):
            found.append(f"trial {number} was created {created[number]} times and ended {ends[number]} times")
        elif steps[number] != list(range(1, NUM_STEPS + 1)):
            found.append(f"trial {number} has the steps {steps[number]}")
    return found


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_no_trial_is_lost_or_doubled_and_no_step_is_in_the_log_twice(first: int) -> None:
    lost_desks = lost_pools = drained = 0
    for seed in range(first, first + 10):
        chaos = Chaos(seed=seed)
        assert faults(chaos.run()) == [], f"seed {seed}"
        lost_desks, lost_pools = lost_desks + chaos.lost_desks, lost_pools + chaos.lost_pools
        drained += chaos.drained
    assert min(lost_desks, lost_pools, drained) > 0
