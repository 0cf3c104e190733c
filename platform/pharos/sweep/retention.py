"""Carries out what plan/retention.py decides: after each trial's end, the checkpoints that nobody needs are deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pharos.errors import StorageError
from pharos.plan import events as ev
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths
from pharos.plan.retention import disposable
from pharos.spec.model import SweepSpec
from pharos.store.mirror import folders_of, remove_folder

logger = logging.getLogger(__name__)


class Retention:
    """A listener of the sweep's events. `record` writes an event to the log.

    The event comes first, then the files: what a crash leaves between the two is deleted by the next session.
    """

    def __init__(self, spec: SweepSpec, paths: SweepPaths, record: Callable[[ev.Event], None]) -> None:
        self._spec, self._paths, self._record = spec, paths, record
        self._ledger = Ledger()
        self._deleted: set[int] | None = None

    def update(self, events: Sequence[ev.Event]) -> None:
        """Take further events in. Called by one thread."""
        for event in events:
            self._ledger.apply(event)
        adapters = self._spec.keep.adapters
        if adapters is None or not any(isinstance(event, ev.TrialEnded | ev.AdaptersRemoved) for event in events):
            return
        gone = disposable(self._ledger, adapters=adapters, contenders=self._contenders())
        if gone:
            self._record(ev.AdaptersRemoved(numbers=gone, reason=f"keep.adapters={adapters}"))
        self._delete()

    def _contenders(self) -> int:
        confirm = self._spec.search.confirm if self._spec.search else None
        return confirm.top if confirm is not None and self._ledger.confirmation is None else 0

    def _delete(self) -> None:
        """The checkpoints of every trial that the log says has none any more."""
        removed = {number for number, trial in self._ledger.trials.items() if trial.removed}
        try:
            if self._deleted is None:  # a session before this one has deleted most of them
                there = folders_of(self._paths.trials)
                self._deleted = {number for number in removed if f"{number:04d}" not in there}
            for number in sorted(removed - self._deleted):
                remove_folder(self._paths.trials / f"{number:04d}")
                self._deleted.add(number)
        except (StorageError, OSError) as error:
            # Room is short or a store is away: no reason to end a sweep. The next trial's end tries again.
            logger.warning("Checkpoints that are not needed could not be deleted yet: %s", error)
