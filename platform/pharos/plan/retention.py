"""Which adapters a storage need not keep: a pure function over the ledger. The driver deletes, and logs it."""

from __future__ import annotations

from pharos.plan.ledger import Ledger
from pharos.plan.trial import BASELINE, repeat_of


def disposable(ledger: Ledger, *, adapters: int | None, contenders: int = 0) -> tuple[int, ...]:
    """Numbers of the trials whose checkpoints may go, in order; none where everything is kept.

    Args:
        adapters: how many of the best trials keep theirs; none: all.
        contenders: how many of the best are going to be repeated, and so may yet win.

    What stays whatever its score: the baseline, the winner, what is registered, every trial that is not at its end, and
    whoever took part in the confirmation, with its repeats.
    """
    if adapters is None:
        return ()
    kept = {BASELINE, *(trial.number for trial in ledger.ranking()[: max(adapters, contenders)])}
    if (best := ledger.best()) is not None:
        kept.add(best.number)
    if ledger.registered is not None:
        kept.add(ledger.registered.number)
    kept |= {repeat.of for number in ledger.repeats if (repeat := repeat_of(number)) is not None}
    return tuple(
        number
        for number, trial in sorted(ledger.trials.items())
        if trial.state.is_final and not trial.removed and number not in kept
    )
