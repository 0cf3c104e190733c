"""The desk as an actor: Ray starts it again when its process is lost, and it goes on from the event log."""

from __future__ import annotations

import ray

from pharos.plan.sweep_plan import SweepPlan
from pharos.spec.model import SweepSpec
from pharos.sweep.desk import Desk
from pharos.sweep.telemetry import SweepMetrics
from pharos.track.event_log import EventLog


class DeskActor(Desk):
    def __init__(self, spec: SweepSpec, plan: SweepPlan, log: EventLog) -> None:
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(spec, plan, log, restarted=restarted, listener=SweepMetrics(spec, plan))
