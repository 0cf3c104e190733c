"""Two ranks over one base sharded with ZeRO-3: what DeepSpeed's internals must do, and equality with one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equality_pools import SHORT, SPLIT, SPLIT_ODD, Rows, Run, settings, train, trial
from torch import nn

from pharos.plan.trial import TrialPlan

TIMEOUT_S = 240


@pytest.fixture(scope="module")
def seen(llama_fp32: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two ranks saw in all scenarios of zero3_worker.py."""
    directory = tmp_path_factory.mktemp("zero3")
    llama_fp32.save_pretrained(directory / "base")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [
        sys.executable,
        str(Path(__file__).with_name("zero3_worker.py")),
        str(directory / "base"),
        str(directory),
    ]
    ranks = [
        subprocess.Popen(
            command,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=(directory / f"rank-{rank}.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        codes = [rank.wait(TIMEOUT_S) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    logs = "\n".join((directory / f"rank-{rank}.log").read_text() for rank in range(2))
    assert codes == [0, 0], logs
    return json.loads((directory / "seen.json").read_text()) | {"logs": logs}


@pytest.fixture(scope="module")
def alone(llama_fp32: nn.Module, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """The same trials in one process with the whole base, the two of each rank together: the same shapes."""
    chosen = settings(tmp_path_factory.mktemp("alone"), seats_per_worker=2)
    return train(llama_fp32, rows, SHORT[:2], chosen) | train(llama_fp32, rows, SHORT[2:], chosen)


def assert_same(run: Run, summary: dict[str, Any], tolerance: float) -> None:
    """Losses and last evaluation within `tolerance` of their size, gradient norms within ten times that.

    The tensors themselves are compared in double precision elsewhere: Adam makes a whole step of a gradient's rounding
    where that gradient is nearly zero.
    """
    assert [step.num_tokens for step in run.steps] == summary["tokens"]
    assert run.losses == pytest.approx(summary["losses"], rel=tolerance)
    assert run.eval_losses[-1] == pytest.approx(summary["eval_losses"][-1], rel=tolerance)
    assert run.norms == pytest.approx(summary["norms"], rel=10 * tolerance)


def test_a_rank_holds_half_of_the_base_between_clocks(seen: dict[str, Any]) -> None:
    padding = 4 * seen["num_parameters"]  # at most one fp32 number for each parameter that two ranks cannot halve
    assert seen["held_between"] <= seen["parameter_bytes"] / 2 + padding
    assert seen["held_within"] > 0.9 * seen["parameter_bytes"]  # so that the measure is known to see what is gathered


def test_trials_of_their_own_rank_equal_one_process(seen: dict[str, Any], alone: dict[int, Run]) -> None:
    """Fewer and fewer trials are live, and one rank ends empty, while the other goes on."""
    for number, run in alone.items():
        assert_same(run, seen["local"][str(number)], 1e-6)


def test_recomputation_under_zero3_changes_nothing(
    seen: dict[str, Any], llama_fp32: nn.Module, rows: Rows, tmp_path: Path
) -> None:
    run = train(llama_fp32, rows, [SHORT[0]], settings(tmp_path, seats_per_worker=2))[0]
    assert_same(run, seen["recomputed"]["0"], 1e-6)


@pytest.mark.parametrize("plan", [SPLIT, SPLIT_ODD], ids=["even", "odd"])
def test_a_batch_split_over_two_ranks_equals_one_process(
    seen: dict[str, Any], llama_fp32: nn.Module, rows: Rows, tmp_path: Path, plan: TrialPlan
) -> None:
    run = train(llama_fp32, rows, [plan], settings(tmp_path, seats_per_worker=1, micro_batch_size=8))[plan.number]
    summary = seen["split"][str(plan.number)]
    assert len(run.losses) == plan.num_steps
    assert np.abs(np.array(run.losses) - summary["losses"]).max() < 1e-5
    assert_same(run, summary, 1e-6)


def test_a_split_trial_paused_within_a_step_goes_on_the_same(seen: dict[str, Any]) -> None:
    for number in ("0", "1"):
        whole, paused, resumed = (seen[name][number] for name in ("split", "paused", "resumed"))
        assert 0 < len(paused["losses"]) < len(whole["losses"])
        assert np.abs(np.array(whole["losses"]) - (paused["losses"] + resumed["losses"])).max() < 1e-6
        assert abs(whole["eval_losses"][-1] - resumed["eval_losses"][-1]) < 1e-6


def test_scores_over_two_ranks_equal_evaluation_in_one_process(
    seen: dict[str, Any], llama_fp32: nn.Module, rows: Rows, tmp_path: Path
) -> None:
    as_eval = rows | {"eval": rows["test"]}
    expected = {}
    for plan in (SPLIT, SPLIT_ODD):
        chosen = settings(tmp_path, seats_per_worker=1, micro_batch_size=8)
        expected[plan.number] = train(llama_fp32, as_eval, [plan], chosen)[plan.number].eval_losses[-1]
    still = trial(-1, num_steps=1, learning_rate=1e-30)
    expected[-1] = train(llama_fp32, as_eval, [still], settings(tmp_path, seats_per_worker=1))[-1].eval_losses[-1]
    scores = {score["number"]: score["metrics"]["test_loss"] for score in seen["scores"]}
    assert set(scores) == set(expected)
    for number, loss in expected.items():
        assert abs(scores[number] - loss) < 1e-5


def test_eight_seats_gather_as_many_bytes_as_one(seen: dict[str, Any]) -> None:
    assert seen["gathered_bytes_1"] == seen["gathered_bytes_8"] > 4 * seen["parameter_bytes"] / 2


def test_nothing_is_printed_that_pharos_does_not_mean_to_say(seen: dict[str, Any]) -> None:
    assert seen["logs"].strip() == ""
