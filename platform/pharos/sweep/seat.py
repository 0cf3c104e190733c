"""A Ray Tune trial as a light proxy: it holds a seat of a pool, nothing else. The training is in the pool."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any

import ray
from ray import tune

from pharos.sweep.names import NAMESPACE

SEATS_ASKED_S = 1.0


class Seat(tune.Trainable):
    """Config: {"number": int, "params": {...}, "desk": actor name}. A step is one round of the trial in its pool."""

    def setup(self, config: dict[str, Any]) -> None:
        self._desk = ray.get_actor(self.desk_name(), namespace=NAMESPACE)
        self._admit(config)

    def step(self) -> dict[str, Any]:
        return ray.get(self._desk.next_report.remote(self._number))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._admit(new_config)
        return True

    # A trial's checkpoint is its pool's business; Ray Tune has nothing to save.
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None

    @classmethod
    def desk_name(cls) -> str:
        raise TypeError("use seat_of(desk), which names the desk")

    def _admit(self, config: dict[str, Any]) -> None:
        self._number = config["number"]
        ray.get(self._desk.admit.remote(self._number, config["params"]))


@dataclass(slots=True)
class OpenSeats:
    """How many trials can be seated now, asked of the desk at most once a second: Tune's search asks all the time.

    Tune pickles its search, so this holds the desk's name and neither its handle nor anything of the driver.
    """

    desk: str
    known: int = 0
    asked_s: float = -inf

    def __call__(self) -> int:
        if monotonic() - self.asked_s > SEATS_ASKED_S:
            desk = ray.get_actor(self.desk, namespace=NAMESPACE)
            self.known, self.asked_s = ray.get(desk.num_seats.remote()), monotonic()
        return self.known


def seat_of(desk: str) -> type[Seat]:
    """The proxy class of one sweep. Its name holds the desk's: Ray registers trainables cluster-wide by name."""
    return type(f"Seat-{desk}", (Seat,), {"desk_name": classmethod(lambda cls: desk)})
