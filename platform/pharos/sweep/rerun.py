"""A trial trained again, alone: in this process, without Ray, from what the event log says, and held against it.

What it is made of is checked first: a base or rows that have changed are refused. Then every step's loss is compared
with the one that the log has. Nothing of the sweep is touched.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING

from pharos.errors import DataError, ModelError
from pharos.handover.references import find_model
from pharos.plan import events as ev
from pharos.plan.exchange import Admit, Orders, RoundReport
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import TrialPlan
from pharos.spec.model import SweepSpec
from pharos.sweep.staging import Staged, stage
from pharos.track.sweeps import log_of
from pharos.track.versions import library_versions

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-5
"""Of a loss, absolute: how far two orders of adding up the same fp32 numbers may lie apart in the first steps."""
HELD_STEPS = 30
"""The steps that decide. Later ones may drift: training amplifies the last bit, the more the higher the rate."""

Progress = Callable[[str], None]
Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A trial's losses by step, as the sweep had them (`first`) and now (`again`), over the same steps.

    num_steps: the trial's in the log. changed: libraries whose version is another, by name (then, now).
    own_difference: where they are not the same, how far two runs alone lie apart that differ only in the last bits of
    the base's weights; beyond the tolerance the trial does not reproduce itself at all.
    """

    trial: str
    dtype: str
    first: Mapping[int, float]
    again: Mapping[int, float]
    num_steps: int
    seconds: float
    changed: Mapping[str, tuple[str, str]]
    own_difference: float | None = None

    def largest_difference(self, steps: int | None = None) -> float:
        """Over the first `steps` steps, or over all; infinite where the trial did not get as far again."""
        return _largest_difference(self.first, self.again, steps)

    @property
    def held_steps(self) -> int:
        """How many steps decide."""
        return min(HELD_STEPS, len(self.first))

    @property
    def reproduces_itself(self) -> bool:
        return self.own_difference is None or self.own_difference <= TOLERANCE

    @property
    def is_same(self) -> bool:
        return self.largest_difference(HELD_STEPS) <= TOLERANCE

    @property
    def first_step_apart(self) -> int | None:
        """The first step whose loss is further off than the tolerance."""
        apart = [s for s in sorted(self.first) if not abs(self.first[s] - self.again.get(s, float("inf"))) <= TOLERANCE]
        return apart[0] if apart else None


def rerun(
    reference: str,
    *,
    storage: Path,
    num_steps: int | None = None,
    base: Path | None = None,
    progress: Progress,
    watch: Watch,
) -> Rerun:
    """Train a trial of a sweep again.

    Args:
        reference: the trial, as quickstart-0007.
        num_steps: stop after so many; none is as far as the trial came.
        base: where its base lies now, if it has moved.
        watch: told (steps done, steps wanted) after each round.

    Raises ModelError where there is no such trial or its base is another, DataError where its rows or its tokenizer
    have changed, and what reading base and rows raises.
    """
    found = find_model(reference, storage=storage, base=base, needs_adapter=False)
    if found.sweep_dir is None or found.trial is None:
        raise ModelError(f"{found.shown} is no trial of a sweep. Name one, as quickstart-0007.")
    events = list(log_of(found.sweep_dir).read())
    ledger = Ledger.of(events)
    assert ledger.started is not None
    first = logged_losses(events, found.trial)
    if not first:
        raise ModelError(f"{found.shown} has trained no step yet: there is nothing to compare with.")
    wanted = min(max(first), num_steps or max(first))

    # find_model has held the base's digest against the log's, so this directory is the base that was trained on.
    spec = SweepSpec.model_validate(ledger.started.spec)
    here = {"storage": str(found.sweep_dir.parent), "base": str(found.model_dir), "revision": None}
    root = Path(ledger.started.root) if ledger.started.root else Path.cwd()
    staged = stage(spec.model_copy(update=here), root=root, progress=progress)
    _refuse_changes(found.shown, ledger.started.digests, staged)
    progress(f"training {found.shown} again, alone, for {wanted} of {max(first)} steps")
    started_s = time.monotonic()
    plan = ledger.record(found.trial).plan
    again = train_alone(staged, plan, num_steps=wanted, watch=watch)
    seconds = time.monotonic() - started_s
    own_difference, held = None, min(wanted, HELD_STEPS)
    if not _largest_difference(first, again, held) <= TOLERANCE:
        progress("they differ: training once more, from a base with other last bits, to see what these do")
        nudged = train_alone(staged, plan, num_steps=held, watch=watch, nudge=True)
        own_difference = _largest_difference(nudged, again, held)
    now = library_versions()
    return Rerun(
        trial=found.shown,
        dtype=staged.plan.dtype,
        first={step: loss for step, loss in first.items() if step <= wanted},
        again=again,
        num_steps=max(first),
        seconds=seconds,
        own_difference=own_difference,
        changed={
            name: (before, now.get(name, "none"))
            for name, before in ledger.started.versions.items()
            if before != now.get(name, "none")
        },
    )


def logged_losses(events: Iterable[ev.Event], number: int) -> dict[int, float]:
    """Loss by optimizer step. Steps that a resume repeated count as they were first."""
    losses: dict[int, float] = {}
    for event in events:
        if isinstance(event, ev.TrialReported) and event.number == number:
            for step in event.steps:
                losses.setdefault(step["step"], step["loss"])
    return losses


def train_alone(
    staged: Staged, trial: TrialPlan, *, num_steps: int, watch: Watch, nudge: bool = False
) -> dict[int, float]:
    """Losses by step of a trial in a pool of one seat in this process, its base whole and not sharded.

    nudge: whether the last bit of each of the base's weights is changed first. What a sum that is added up in another
    order does to a curve is about as much.
    """
    import torch

    from pharos.model.loading import quiet
    from pharos.train.group import SingleProcess
    from pharos.train.loop import run_pool
    from pharos.train.open_pool import open_pool

    pool = staged.spec.pool
    torch.set_num_threads(max(1, int(pool.cpus_per_worker)))  # as a worker has
    micro_batch_size = staged.spec.train.micro_batch_size
    clocks_per_step = -(-trial.hyperparameters.batch_size // micro_batch_size)  # the log's may be of a split batch
    alone = replace(trial, clocks_per_step=clocks_per_step)
    is_gpu = pool.gpus_per_worker > 0 and torch.cuda.is_available()
    group = SingleProcess(device=torch.device("cuda" if is_gpu else "cpu"))
    losses: dict[int, float] = {}

    def exchange(report: RoundReport) -> Orders:
        if report.round == 0:
            return Orders(admit=(Admit(seat=0, trial=alone),))
        [seat] = report.seats
        losses.update({step.step: step.loss for step in seat.steps if step.step <= num_steps})
        watch(min(seat.step, num_steps), num_steps)
        return Orders(close=seat.done or seat.diverged is not None or seat.step >= num_steps)

    with tempfile.TemporaryDirectory(prefix="pharos-rerun-") as trials_dir:
        settings = _alone(staged, alone, trials_dir, num_clocks=num_steps * clocks_per_step)
        with quiet():
            opened = open_pool(settings, group)
        if nudge:
            _nudge(opened.base.module)
        run_pool(settings=settings, pool=opened, group=group, exchange=exchange)
    return losses


def _nudge(module: nn.Module) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        bit = torch.randint(-1, 2, parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
        parameter.data.mul_(1 + bit * torch.finfo(parameter.dtype).eps)


def _alone(staged: Staged, trial: TrialPlan, trials_dir: str, *, num_clocks: int) -> PoolSettings:
    """The sweep's own settings, for one seat."""
    from pharos.sweep.driver import pool_settings

    settings = pool_settings(staged, SweepPaths(staged.storage, staged.spec.name), "rerun")
    return replace(
        settings,
        base_dir=str(staged.base_dir),
        data_dir=str(staged.data.directory),
        trials_dir=trials_dir,
        workers=1,
        seats_per_worker=1,
        placement="local",
        sharding="replicate",
        r_max=trial.hyperparameters.r,
        report_every=min(settings.report_every, num_clocks),
    )


def _largest_difference(one: Mapping[int, float], other: Mapping[int, float], steps: int | None) -> float:
    wanted = [step for step in one if steps is None or step <= steps]
    apart = [abs(one[step] - other[step]) if step in other else inf for step in wanted]
    return inf if any(isnan(value) for value in apart) else max(apart, default=inf)


def _refuse_changes(trial: str, before: Mapping[str, str], staged: Staged) -> None:
    """Raise DataError where what the trial learned from is not what is there now."""
    now = staged.digests()
    called = {
        "data": "its rows, or how this version of Pharos prepares them, have",
        "base": "its base has",
        "tokenizer": "its tokenizer has",
    }
    for name, what in called.items():
        if name in before and before[name] != now[name]:
            raise DataError(
                f"{trial}: {what} changed since it was trained: digest of {name} {before[name]}, now {now[name]}. "
                "Restore them; another curve would say nothing."
            )
