"""The log of a simulated sweep whose rounds were measured: their parts, tokens, arithmetic and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.simulated_sweep import Happening, simulated_spec, simulated_sweep

from pharos.plan import events as ev
from pharos.spec.model import SweepSpec

ROUND = {
    "gather_s": 0.1,
    "forward_s": 0.4,
    "backward_s": 0.7,
    "optimizer_s": 0.1,
    "num_flops": 1e10,
    "checkpoint_bytes": 4_000,
    "memory": tuple(
        {"worker": worker, "base": 5_000, "seats": 6_000, "activations": 7_000, "host": 700_000_000}
        for worker in (0, 1)
    ),
}
"""Of every round; its clocks take 1.5 s, so that 0.2 s are left for making batches."""


UNEVENTFUL = Happening()


def measured_spec(num_trials: int = 12) -> SweepSpec:
    pool = {"workers": 2, "seats_per_worker": 4, "price_per_node_hour": 2.5, "peak_tflops_per_worker": 0.01}
    return simulated_spec(num_trials, pool=pool)


def measured_sweep(spec: SweepSpec, *, happening: Happening = UNEVENTFUL) -> list[ev.Event]:
    return [_measured(event) for event in simulated_sweep(spec, happening=happening)]


def _measured(event: ev.Event) -> Any:
    if not isinstance(event, ev.RoundFinished):
        return event
    return replace(event, num_row_tokens=min(event.num_tokens + 50, event.num_padded_tokens), **ROUND)
