"""How long a trial sat in seats, as a fold over its events. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pharos.plan import events as ev

SeatEvent = ev.TrialSeated | ev.TrialReported | ev.TrialUnseated | ev.TrialEnded | ev.PoolLost


@dataclass(slots=True, kw_only=True)
class SeatTime:
    """seat_s: from each TrialSeated to the trial's end, its move or its pool's loss; where the driver died without a
    word, to the trial's last report. until_s: time of the last event that was counted, so that taking one again adds
    nothing.
    """

    seat_s: float = 0.0
    until_s: float = 0.0
    is_seated: bool = False

    def apply(self, event: SeatEvent) -> None:
        """Take an event of this trial, or the loss of the pool that it sits in."""
        if self.is_seated and not isinstance(event, ev.TrialSeated):
            self.seat_s += max(event.time_s - self.until_s, 0.0)
        self.until_s = max(self.until_s, event.time_s)
        if not isinstance(event, ev.TrialReported):
            self.is_seated = isinstance(event, ev.TrialSeated)
