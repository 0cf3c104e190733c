"""How much each searched field decided over the scores of a sweep, by Optuna. No Ray, and light enough for a terminal.

By PED-ANOVA (https://arxiv.org/abs/2304.10255): how far the values of the best trials lie from those of all. Optuna's
fANOVA needs a minute for 1,000 trials, and two seconds to import scikit-learn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite

from pharos.plan.hyperparameters import Params
from pharos.spec.model import Domain

MIN_TRIALS = 4
BEST_SHARE = 0.1
MIN_BEST = 20
"""PED-ANOVA asks what sets the best tenth apart. Of a small sweep, too few for that, it is the best 20 or the better
half: of the quickstart's 24 trials, a tenth or a fifth names the warmup, a half the learning rate, as fANOVA does."""


def importance_of(space: Mapping[str, Domain], scored: Sequence[tuple[Params, float]]) -> dict[str, float]:
    """Dotted field -> its share in what sets the best trials apart; shares sum to 1, the largest first.

    scored: searched values and score of trials, lower is better, in whatever order. Give all that have a score, also
    those that were stopped: halving stops the weak, so that without them the best would be compared with the good
    alone, and what ruins a trial would not show. Points outside the space are left out, and so are scores that are not
    finite. {} with fewer than 4 points left, where all scores are equal, and where the best are spread like all.
    """
    if not space or len(scored) < MIN_TRIALS:
        return {}
    with _without_scikit_learn():
        from optuna.importance import PedAnovaImportanceEvaluator
    from optuna import create_study
    from optuna.trial import create_trial

    from pharos.sweep.study import distributions, inside

    known = distributions(space)
    points = [(inside(space, params), score) for params, score in scored if isfinite(score)]
    trials = [
        create_trial(value=score, params=point, distributions=known) for point, score in points if point is not None
    ]
    if len(trials) < MIN_TRIALS or len({trial.value for trial in trials}) == 1:
        return {}
    with _quiet_optuna():
        study = create_study()
    study.add_trials(trials)
    share = min(max(BEST_SHARE, MIN_BEST / len(trials)), 0.5)
    # Where a field never varied, the evaluator's prior would still make it seem to matter.
    varied = [field for field in known if len({trial.params[field] for trial in trials}) > 1]
    found = dict.fromkeys(known, 0.0)
    if varied:
        found |= PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study, params=varied)
    total = sum(found.values())
    if total <= 0:
        return {}
    return {field: value / total for field, value in sorted(found.items(), key=lambda item: (-item[1], item[0]))}


@contextmanager
def _without_scikit_learn() -> Iterator[None]:
    """Optuna imports it for fANOVA, where it is installed, before anything asks for that: two seconds for nothing."""
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # how an import is refused
    try:
        yield
    finally:
        del sys.modules["sklearn"]


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna says of every study that it has been created."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
