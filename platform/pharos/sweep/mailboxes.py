"""What the desk has for the proxies of Ray Tune: each trial's results, in order, until its proxy asks for them."""

from __future__ import annotations

import asyncio
from typing import Any

from pharos.plan.ledger import Ledger
from pharos.plan.trial import TrialState
from pharos.sweep.reports import result_for_tune


class Mailboxes:
    """One a trial that its proxy admitted. A repeat has no proxy; after a restart of the desk, some have yet to ask."""

    def __init__(self, ledger: Ledger, metric: str) -> None:
        """ledger: the desk's own, which it keeps up to date."""
        self._ledger, self._metric = ledger, metric
        self._boxes: dict[int, asyncio.Queue[dict[str, Any]]] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._boxes

    def open(self, number: int) -> None:
        self._boxes[number] = asyncio.Queue()

    async def next(self, number: int) -> dict[str, Any]:
        """The trial's next result, as Ray Tune wants it; the last has done=True and the final state."""
        return await self._boxes[number].get()

    def tell(self, number: int) -> None:
        """How a trial stands now, if anybody asks."""
        if number in self._boxes:
            self._boxes[number].put_nowait(self._result(number))

    def let_go(self, number: int) -> None:
        """Tell a proxy to end although its trial has not: nobody will train it in this session."""
        if number in self._boxes:
            self._boxes[number].put_nowait(self._result(number) | {"state": str(TrialState.FAILED), "done": True})

    def _result(self, number: int) -> dict[str, Any]:
        return result_for_tune(self._ledger.trials[number], self._metric)
