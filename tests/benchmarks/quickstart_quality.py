"""What the quickstart's sweep finds, beside tries by hand and full fine-tuning, and how long that takes.

All models are scored by the same functions on the same test rows. Nothing was chosen by those: what is tried by hand
is chosen by eval loss, as the sweep chooses.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tests.benchmarks.quickstart import QUICKSTART, Swept, sweep
from tests.benchmarks.reporting import Options, Report, Row, Table, Target
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from pharos.data.order import collate, row_order
from pharos.data.prepare import TokenRows, open_prompts, open_split
from pharos.model.generate import exact_match
from pharos.plan.budget import trial_plan
from pharos.plan.exchange import Admit, Orders, RoundReport, Score, Split
from pharos.plan.paths import SweepPaths
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import BASELINE, TrialPlan
from pharos.spec.load import load_spec
from pharos.sweep.driver import pool_settings
from pharos.sweep.staging import Staged, stage
from pharos.train.group import SingleProcess
from pharos.train.loop import run_pool
from pharos.train.open_pool import open_pool
from pharos.train.schedule import learning_rate_at

BY_HAND = (1e-4, 1e-3, 1e-2)
"""Tried at the spec's own r=8: decades around LoRA's usual 2e-4 to 1e-3, up to the end of the sweep's own range."""
FULL_FINE_TUNING = (1e-3, 3e-3)
"""Usual for training models of 1 to 2 M parameters; the better one by eval loss counts."""
HOST = SingleProcess(device=torch.device("cpu"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model to be scored. eval_loss: what it was chosen by."""

    model: str
    learning_rate: float | None
    r: int | None
    eval_loss: float | None
    base_dir: Path
    adapter: Path | None = None


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    overrides = _shortened(options)
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        swept = sweep(storage, overrides, cache=storage / "user-cache")
        spec = load_spec(QUICKSTART, overrides).model_copy(update={"storage": str(storage)})
        base_dir = next((storage / "cache").glob("tiny-*"))
        # The base that the sweep built and copied below its storage; the user's own cache plays no part.
        staged = stage(spec.model_copy(update={"base": str(base_dir)}), root=QUICKSTART.parent, progress=_silent)
        rows = [score(staged, candidate) for candidate in candidates(staged, swept, storage)]
    return Report(
        settings={"spec": QUICKSTART.name, "overrides": overrides, "tried by hand": BY_HAND, "full": FULL_FINE_TUNING},
        tables=[
            Table(title="test rows: combinations that training never saw", rows=rows),
            Table(
                title="seconds of the sweep by phase; staging builds the base, once on a machine",
                rows=[{phase: round(seconds, 1) for phase, seconds in swept.phases_s.items()}],
            ),
            Table(title="seconds of the pool, and its work", rows=[_work(swept)]),
        ],
        quality=_quality(swept),
        targets=_targets(swept, {row["model"]: row for row in rows}),
    )


def candidates(staged: Staged, swept: Swept, storage: Path) -> list[Candidate]:
    """Untrained, baseline, best by hand, winner, and full fine-tuning as the ceiling."""
    ledger, base_dir = swept.ledger, staged.base_dir
    winner = ledger.best()
    assert winner is not None
    found = [Candidate(model="untrained", learning_rate=None, r=None, eval_loss=None, base_dir=base_dir)]
    by_hand = try_by_hand(staged, storage)
    trials = {"baseline": ledger.trials[BASELINE], "winner": winner}
    of_sweep = {
        name: Candidate(
            model=name,
            learning_rate=trial.plan.hyperparameters.learning_rate,
            r=trial.plan.hyperparameters.r,
            eval_loss=trial.score,
            base_dir=base_dir,
            adapter=Path(trial.best_checkpoint or ""),
        )
        for name, trial in trials.items()
    }
    return [*found, of_sweep["baseline"], *by_hand, of_sweep["winner"], fine_tune_fully(staged, storage)]


def try_by_hand(staged: Staged, storage: Path) -> list[Candidate]:
    """Three learning rates, all else the spec's own, to full length; the best by eval loss comes first."""
    settings = replace(_settings(staged, storage), trials_dir=str(storage / "by-hand"))
    plans = [
        trial_plan(staged.spec, number, {"optim.learning_rate": rate}, staged.data.facts.num_train_items)
        for number, rate in enumerate(BY_HAND)
    ]
    reports: list[RoundReport] = []

    def exchange(report: RoundReport) -> Orders:
        reports.append(report)
        if not report.seats:
            return Orders(admit=tuple(Admit(seat=plan.number, trial=plan) for plan in plans))
        return Orders(close=all(seat.done or seat.diverged for seat in report.seats))

    run_pool(settings=settings, pool=open_pool(settings, HOST), group=HOST, exchange=exchange)
    tried = sorted((seat for seat in reports[-1].seats if seat.best_checkpoint), key=lambda seat: seat.best_metric)
    return [
        Candidate(
            model="best by hand" if place == 0 else "by hand",
            learning_rate=BY_HAND[seat.number],
            r=plans[seat.number].hyperparameters.r,
            eval_loss=seat.best_metric,
            base_dir=staged.base_dir,
            adapter=Path(seat.best_checkpoint or ""),
        )
        for place, seat in enumerate(tried)
    ]


def fine_tune_fully(staged: Staged, storage: Path) -> Candidate:
    """All weights, on the same rows in the same order and number; its learning rate chosen by eval loss."""
    plan = trial_plan(staged.spec, 0, {}, staged.data.facts.num_train_items)
    train_rows = open_split(staged.data.directory, "train")
    settings = _settings(staged, storage)
    tried = []
    for rate in FULL_FINE_TUNING:
        model = AutoModelForCausalLM.from_pretrained(staged.base_dir, dtype=torch.float32)
        _train_fully(model, train_rows, plan, rate)
        directory = storage / f"full-{rate:g}"
        shutil.copytree(staged.base_dir, directory)
        model.save_pretrained(directory)
        eval_loss = mean_loss(replace(settings, base_dir=str(directory)), None, "eval")
        tried.append(
            Candidate(model="full fine-tuning", learning_rate=rate, r=None, eval_loss=eval_loss, base_dir=directory)
        )
    return min(tried, key=lambda candidate: candidate.eval_loss)


def score(staged: Staged, candidate: Candidate) -> Row:
    """Loss and exact match on all test rows."""
    settings = replace(_settings(staged, staged.storage), base_dir=str(candidate.base_dir))
    prompts, references = open_prompts(staged.data.directory)
    match = exact_match(
        candidate.base_dir,
        [prompt.tolist() for prompt in prompts],
        references,
        max_new_tokens=staged.spec.test.max_new_tokens,
        adapter_dir=candidate.adapter,
    )
    return {
        "model": candidate.model,
        "learning rate": candidate.learning_rate,
        "r": candidate.r,
        "eval loss": candidate.eval_loss,
        "test loss": mean_loss(settings, candidate.adapter, "test"),
        "exact match": match.score,
        "test rows": match.num_rows,
    }


def mean_loss(settings: PoolSettings, adapter: Path | None, split: Split) -> float:
    """As a pool scores an adapter, or the bare base."""
    answers = [
        Orders(score=(Score(number=0, adapter=None if adapter is None else str(adapter), split=split),)),
        Orders(close=True),
    ]
    reports: list[RoundReport] = []

    def exchange(report: RoundReport) -> Orders:
        reports.append(report)
        return answers.pop(0)

    run_pool(settings=settings, pool=open_pool(settings, HOST), group=HOST, exchange=exchange)
    return reports[-1].scores[0].metrics[f"{split}_loss"]


def _train_fully(model: nn.Module, rows: TokenRows, plan: TrialPlan, learning_rate: float) -> None:
    chosen = replace(plan.hyperparameters, learning_rate=learning_rate)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(chosen.adam_beta1, chosen.adam_beta2), weight_decay=chosen.weight_decay
    )
    for step in range(plan.num_steps):
        size = chosen.batch_size
        batch = collate(rows, row_order(len(rows), chosen.data_seed, step * size, size), pad_id=0)
        tokens_BT, trained_BT = torch.from_numpy(batch.tokens), torch.from_numpy(batch.trained)
        # Pads come last, so no row looks at them; packed rows are told apart by their positions.
        own = {} if batch.positions is None else {"position_ids": torch.from_numpy(batch.positions)}
        logits_BTV = model(input_ids=tokens_BT, use_cache=False, **own).logits
        picked = trained_BT[:, 1:]
        loss = F.cross_entropy(logits_BTV[:, :-1][picked], tokens_BT[:, 1:][picked])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), chosen.max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate_at(step, hyperparameters=chosen, num_steps=plan.num_steps)
        optimizer.step()
        optimizer.zero_grad()


def _settings(staged: Staged, storage: Path) -> PoolSettings:
    """One process with a whole base and a seat for each try."""
    settings = pool_settings(staged, SweepPaths(storage, staged.spec.name), "pool-0")
    return replace(settings, workers=1, seats_per_worker=len(BY_HAND), placement="local", sharding="replicate")


def _shortened(options: Options) -> list[str]:
    if options.smoke:
        return ["train.max_steps=16", "search.num_trials=4", "data.max_test_rows=8", "test.max_new_tokens=4"]
    return [f"train.max_steps={options.max_steps}"] if options.max_steps else []


def _work(swept: Swept) -> Row:
    totals, trials = swept.ledger.totals, swept.ledger.trials.values()
    run_steps, full_steps = sum(trial.step for trial in trials), sum(trial.plan.num_steps for trial in trials)
    return {
        "pool open": round(swept.training_s, 1),
        "clocks_s": round(totals.clocks_s, 1),
        "evaluation_s": round(totals.evaluation_s, 1),
        "checkpoint_s": round(totals.checkpoint_s, 1),
        "exchange_s": round(totals.exchange_s, 1),
        "clocks": totals.clocks,
        "occupancy": round(totals.occupancy, 3),
        "steps saved": round(1 - run_steps / full_steps, 3),
    }


def _quality(swept: Swept) -> Row:
    ledger = swept.ledger
    winner = ledger.best()
    return {
        "trials": len(ledger.trials),
        "winner": None if winner is None else winner.number,
        "winner's values": {} if winner is None else dict(winner.plan.params),
        "exact match that the sweep reported": None if winner is None else winner.test_metrics.get("test_exact_match"),
    }


def _targets(swept: Swept, rows: Mapping[str, Mapping[str, Any]]) -> Sequence[Target]:
    winner = rows["winner"]
    targets = [
        Target(what="seconds of the sweep on a fresh machine", measured=swept.wall_s, limit=300, at_most=True),
        Target(what="share outside clocks and evaluation", measured=swept.share_outside, limit=0.2, at_most=True),
        Target(what="test rows", measured=winner["test rows"], limit=200),
    ]
    for other in ("baseline", "best by hand"):
        loss, match = rows[other]["test loss"], rows[other]["exact match"]
        targets += [
            Target(what=f"test loss, beside that of {other}", measured=winner["test loss"], limit=loss, at_most=True),
            Target(
                what=f"exact match, one row more than {other}",
                measured=winner["exact match"],
                limit=match + 1 / winner["test rows"],
            ),
        ]
    return targets


def _silent(text: str) -> None:
    """What staging says of its progress is not shown."""
