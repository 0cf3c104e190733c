"""The search: a thin layer over Ray Tune's OptunaSearch that numbers trials, seeds the sampler and tells states truly.

Stock OptunaSearch tells a stopped trial COMPLETE with its partial value and cannot resume without losing or repeating
trials. Here the study is rebuilt from the ledger, unfinished trials are handed out again under their old numbers, and
Optuna hears: COMPLETE with the score; PRUNED with its intermediates; DIVERGED as PRUNED without any, because FAIL is
invisible to TPE; FAILED as FAIL.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState as OptunaState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from pharos.plan.hyperparameters import Params, baseline_params
from pharos.plan.ledger import Ledger, TrialRecord
from pharos.plan.metrics import is_higher_better, ranking_metric
from pharos.plan.trial import BASELINE, TrialState
from pharos.spec.model import Domain, Scalar, SweepSpec
from pharos.sweep.study import TOLD_AS, distributions, inside, intermediates, to_value, told_value


class SweepSearch(OptunaSearch):
    """Suggests {"number": int, "params": {dotted field: value}}.

    Trial 0 is the baseline; it is told to Optuna only where it lies inside the space. The sampler is seeded anew by
    (sweep seed, trial number), so that a resumed sweep asks the same questions. Raises nothing of its own.
    """

    def __init__(
        self,
        spec: SweepSpec,
        ledger: Ledger,
        *,
        num_trials: int,
        num_seats: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        """num_seats: how many trials can be seated now; beyond them nothing is suggested yet."""
        self._sweep_spec, self._num_seats = spec, num_seats
        self._domains: Mapping[str, Domain] = spec.search.space if spec.search else {}
        metric = ranking_metric(spec)
        mode = "max" if is_higher_better(metric) else "min"
        super().__init__(space=None, metric=metric, mode=mode, study_name=spec.name)
        self._space = distributions(self._domains)
        self._numbers: dict[str, int] = {}
        self._running: set[str] = set()
        self._intermediates: dict[int, dict[int, float]] = {}
        self._again = {number: trial for number, trial in ledger.trials.items() if not trial.state.is_final}
        self._fresh = [number for number in range(num_trials) if number not in ledger.trials]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._setup_study(mode)
        for number, trial in sorted(ledger.trials.items()):
            if trial.state.is_final:
                self._remember(trial)
            else:
                self._intermediates[number] = intermediates(trial, metric)

    @property
    def study(self) -> optuna.Study:
        return self._ot_study

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next unfinished trial, then the next new one; Searcher.FINISHED when there is none.

        None while all seats are taken: the later a trial is suggested, the more is known.
        """
        if (self._again or self._fresh) and len(self._running) >= self._num_seats():
            return None
        params: Params | None = None
        if self._again:
            number = min(self._again)
            params = self._again.pop(number).plan.params
        elif self._fresh:
            number = self._fresh.pop(0)
            if number == BASELINE:
                params = baseline_params(self._sweep_spec)
        else:
            return Searcher.FINISHED
        self._numbers[trial_id] = number
        self._running.add(trial_id)
        return {"number": number, "params": self._ask(trial_id, number, params)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep an evaluation; it is reported when the trial ends, once it is known not to have diverged."""
        value = result[self.metric]
        if value == value:
            self._intermediates.setdefault(self._numbers[trial_id], {})[result["clocks"]] = value

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended. A result without a final state is a proxy that died: FAIL."""
        self._running.discard(trial_id)
        if result and result.get("done") and not error:
            self.on_trial_result(trial_id, result)
        trial = self._ot_trials.get(trial_id)
        if trial is None or trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        result = {} if error or result is None else result
        state = TrialState(result.get("state", TrialState.FAILED))
        told = TOLD_AS.get(state, OptunaState.FAIL)
        if state != TrialState.DIVERGED:
            for step, value in sorted(self._intermediates.get(self._numbers[trial_id], {}).items()):
                trial.report(value, step)
        self.study.tell(trial, result["score"] if told == OptunaState.COMPLETE else None, state=told)

    def _ask(self, trial_id: str, number: int, fixed: Params | None) -> dict[str, Scalar]:
        """Values for a trial: given ones, made known to Optuna where they lie in the space, or the sampler's."""
        if fixed is not None:
            point = inside(self._domains, fixed)
            if point is None:
                return dict(fixed)
            self.study.enqueue_trial(point, user_attrs={"number": number})
        self.study.sampler = self._sampler_for(number)
        trial = self.study.ask(fixed_distributions=self._space)
        trial.set_user_attr("number", number)
        self._ot_trials[trial_id] = trial
        return {field: to_value(self._domains[field], raw) for field, raw in trial.params.items()}

    def _sampler_for(self, number: int) -> optuna.samplers.BaseSampler:
        search = self._sweep_spec.search
        if search is None:
            return optuna.samplers.RandomSampler(seed=0)
        digest = hashlib.sha256(f"{search.seed}/{number}".encode()).digest()
        with warnings.catch_warnings():
            # Optuna marks multivariate and constant_liar as experimental; both are chosen on purpose.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=int.from_bytes(digest[:4], "big"),
                multivariate=True,
                constant_liar=True,
                n_startup_trials=search.num_startup_trials,
            )

    def _remember(self, trial: TrialRecord) -> None:
        """A finished trial of an earlier session, as if Optuna had seen it end."""
        point = inside(self._domains, trial.plan.params)
        if point is None or not self._space:
            return
        told = TOLD_AS[trial.state]
        seen = {} if trial.state == TrialState.DIVERGED else intermediates(trial, self.metric)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=told,
                value=told_value(trial, told, seen),
                params=point,
                distributions=self._space,
                intermediate_values=seen,
                user_attrs={"number": trial.number},
            )
        )
