"""`pharos sweep` from a file to a registered model, on one finished sweep of a tiny model under ZeRO-3."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.integration.conftest import FinishedSweep
from tests.support.small_sweep import (
    NAME,
    finish,
    largest_difference,
    pause,
    prepared_rows,
    rows,
    steps_of,
    train_alone,
)

from pharos.data.prepare import open_prompts, open_split
from pharos.plan.events import RoundFinished, RungDecided, TrialSeated
from pharos.plan.result import result_json
from pharos.plan.trial import BASELINE
from pharos.spec.identity import spec_digest
from pharos.spec.load import load_spec
from pharos.spec.model import SweepSpec
from pharos.sweep.staging import stage
from pharos.track.mlflow_client import connect
from pharos.track.versions import environment_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.timeout(600)  # the first test runs the sweep

NUM_TRIALS, NUM_SEATS = 6, 4
CURVE_TOLERANCE = 1e-5


def trial(finished: FinishedSweep, number: int) -> dict[str, Any]:
    return dict(finished.result["trials"][number])


def test_every_trial_ends_once_under_its_number(finished: FinishedSweep) -> None:
    trials = finished.result["trials"]
    assert [trial["number"] for trial in trials] == list(range(NUM_TRIALS))
    assert {trial["state"] for trial in trials} == {"COMPLETED", "PRUNED"}
    assert sorted(event.number for event in finished.events if event.kind == "trial_ended") == list(range(NUM_TRIALS))
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in trials}) == NUM_TRIALS
    for trial in trials:
        assert trial["reason"]
        assert Path(trial["checkpoint"]).is_dir()
        assert (trial["steps"] == trial["num_steps"]) == (trial["state"] == "COMPLETED")


def test_the_best_trial_has_the_best_score_and_beats_the_baseline(finished: FinishedSweep) -> None:
    scores = {trial["number"]: trial["score"] for trial in finished.result["trials"]}
    assert finished.result["best"] == min(scores, key=lambda number: scores[number])
    assert finished.result["baseline"] == BASELINE
    test = finished.result["test"]
    assert test["best"]["test_loss"] < 0.8 * test["baseline"]["test_loss"]
    assert test["baseline"]["test_loss"] < test["untrained_base"]["test_loss"]
    for kept in finished.result["trials"]:
        assert kept["score"] == min(metrics["eval_loss"] for metrics in kept["evaluations"].values())
        assert kept["evaluations"][str(kept["best_step"])]["eval_loss"] == kept["score"]


def test_the_result_says_what_it_is_made_of_and_where_the_time_went(finished: FinishedSweep) -> None:
    result = finished.result
    assert set(result["digests"]) == {"spec", "data", "base", "tokenizer"}
    assert {"pharos", "torch", "ray", "deepspeed", "peft", "optuna", "mlflow", "transformers"} <= set(
        result["versions"]
    )
    assert list(result["time"]["phases_s"]) == sorted(["start", "pool", "search", "test", "hand_over"])
    assert sum(result["time"]["phases_s"].values()) <= finished.run.wall_s
    assert result["pool"] == {
        "workers": 2,
        "seats": NUM_SEATS,
        "placement": "local",
        "sharding": "zero3",
        "restarts": 0,
        "count": 1,
    }
    rounds = [event for event in finished.events if isinstance(event, RoundFinished)]
    trained = sum(event.live_seat_clocks for event in rounds)
    assert result["work"]["trial_clocks"] == trained == sum(trial["clocks"] for trial in result["trials"])
    assert result["work"]["occupancy"] == trained / (NUM_SEATS * sum(event.clocks for event in rounds))


def test_the_event_log_reads_back_into_the_same_result(finished: FinishedSweep) -> None:
    place = finished.place
    spec = load_spec(place.spec).model_copy(update={"storage": str(place.paths.storage)})
    plan = stage(spec, root=place.root, progress=lambda text: None).plan
    assert json.loads(json.dumps(result_json(finished.ledger, plan))) == finished.result


def test_halving_says_why_and_never_stops_the_baseline(finished: FinishedSweep) -> None:
    decisions = [event for event in finished.events if isinstance(event, RungDecided)]
    stopped = {event.number: event for event in decisions if event.stopped}
    assert stopped, "this sweep is made so that some trials are stopped"
    for number, event in stopped.items():
        assert trial(finished, number)["state"] == "PRUNED"
        assert trial(finished, number)["reason"] == f"rung {event.rung}: {event.reason}"
        assert trial(finished, number)["clocks"] == event.rung
        assert re.search(rf"{event.rank}\w\w of {event.compared} at {event.rung} clocks", event.reason)
    assert {number for number in range(NUM_TRIALS) if trial(finished, number)["state"] == "PRUNED"} == set(stopped)
    # The baseline learns slowest of all here: any other trial with its scores would have been stopped.
    baseline = [event for event in decisions if event.number == BASELINE]
    assert [event.rung for event in baseline] == [8, 16]
    assert any(event.rank > event.compared // 2 for event in baseline)
    assert trial(finished, BASELINE)["state"] == "COMPLETED"


def test_trials_train_as_if_each_were_alone_in_one_process(finished: FinishedSweep, tmp_path: Path) -> None:
    """The promise of a pool: shards, neighbours and a late seat leave no trace in what a trial does."""
    place = finished.place
    seated = [event.number for event in finished.events if isinstance(event, TrialSeated)]
    late = seated[NUM_SEATS:]
    assert len(late) == NUM_TRIALS - NUM_SEATS
    for number in {finished.result["best"], *late}:
        alone = train_alone(
            load_spec(place.spec),
            finished.ledger.trials[number].plan,
            base=place.root / "base",
            data=prepared_rows(place.paths.storage),
            trials=tmp_path,
            report_every=4,
        )
        assert len(steps_of(finished.events, number)) == finished.result["trials"][number]["steps"]
        assert largest_difference(finished.events, number, alone) < CURVE_TOLERANCE, f"trial {number}"


@pytest.fixture(scope="module")
def client(finished: FinishedSweep) -> MlflowClient:
    return connect(finished.tracking_uri)


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> dict[str, Run]:
    """All runs of the store, by name."""
    experiment = client.get_experiment_by_name("pharos")
    assert experiment is not None
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(client.search_experiments()) == 2, "MLflow's own Default, and ours"
    return found


def test_mlflow_holds_one_parent_and_one_child_for_each_trial(finished: FinishedSweep, runs: dict[str, Run]) -> None:
    names = [f"{NAME}-{number:04d}" for number in range(NUM_TRIALS)]
    assert sorted(runs) == [NAME, *names]
    parent = runs[NAME]
    assert parent.info.status == "FINISHED"
    assert {runs[name].data.tags["mlflow.parentRunId"] for name in names} == {parent.info.run_id}
    assert parent.data.tags["pharos.best_trial"] == str(finished.result["best"])
    assert parent.data.params["optim.weight_decay"] == "0.01"
    for part, digest in finished.result["digests"].items():
        assert parent.data.tags[f"pharos.digest.{part}"] == digest
    for part, version in finished.result["versions"].items():
        assert parent.data.tags[f"pharos.version.{part}"] == version


def test_mlflow_holds_what_each_trial_chose_and_how_it_ended(finished: FinishedSweep, runs: dict[str, Run]) -> None:
    for trial in finished.result["trials"]:
        run = runs[trial["name"]]
        assert run.data.tags["pharos.state"] == trial["state"]
        assert run.data.tags["pharos.reason"] == trial["reason"]
        assert run.info.status == {"COMPLETED": "FINISHED", "PRUNED": "KILLED"}[trial["state"]]
        assert run.data.metrics["score"] == trial["score"]
        for field, value in trial["params"].items():
            assert json.loads(run.data.params[field]) == value
        assert json.loads(run.data.params["lora.lora_dropout"]) == 0.1


def test_mlflow_holds_every_step_and_every_evaluation_once(
    finished: FinishedSweep, client: MlflowClient, runs: dict[str, Run]
) -> None:
    def history(name: str, metric: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in client.get_metric_history(runs[name].info.run_id, metric)]

    for trial in finished.result["trials"]:
        steps = steps_of(finished.events, trial["number"])
        for metric in ("loss", "grad_norm", "learning_rate", "epoch"):
            assert sorted(history(trial["name"], metric)) == [(step["step"], step[metric]) for step in steps]
        tokens = sorted(history(trial["name"], "num_tokens"))
        assert len(tokens) == len(steps)
        assert tokens[-1][1] == trial["num_tokens"] == sum(step["num_tokens"] for step in steps)
        evaluations = {int(step): metrics["eval_loss"] for step, metrics in trial["evaluations"].items()}
        assert dict(history(trial["name"], "eval_loss")) == evaluations
    best = finished.result["trials"][finished.result["best"]]
    assert dict(history(best["name"], "test_loss")) == {0: finished.result["test"]["best"]["test_loss"]}


def test_its_page_lies_beside_its_result_and_both_are_kept_with_the_run(
    finished: FinishedSweep, client: MlflowClient, runs: dict[str, Run]
) -> None:
    page = finished.place.paths.report.read_text(encoding="utf-8")
    assert f"{NAME}-{finished.result['best']:04d} wins: eval_loss" in page
    kept = {file.path for file in client.list_artifacts(runs[NAME].info.run_id)}
    assert {"result.json", "report.html"} <= kept


def test_the_winner_is_registered_as_candidate_with_its_lineage(finished: FinishedSweep, client: MlflowClient) -> None:
    result = finished.result
    [version] = client.search_model_versions("name = 'switch'")
    assert client.get_registered_model("switch").aliases == {"candidate": version.version}
    assert result["registered"] == {
        "model": "switch",
        "version": str(version.version),
        "alias": "candidate",
        "trial": result["best"],
        "source": result["registered"]["source"],
    }
    assert version.tags["pharos.sweep"] == NAME
    assert version.tags["pharos.trial"] == str(result["best"])
    for part, digest in result["digests"].items():
        assert version.tags[f"pharos.digest.{part}"] == digest
    assert float(version.tags["pharos.metric.test_loss"]) == result["test"]["best"]["test_loss"]
    assert float(version.tags["pharos.metric.parity"]) < 1e-4
    merged = Path(result["registered"]["source"])
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"} <= set(names_in(merged))
    assert {"adapter_model.safetensors", "adapter_config.json"} <= set(names_in(merged.parent / "adapter"))
    assert version.tags["pharos.origin.base"] == "base"
    assert version.tags["pharos.origin.storage"] == str(finished.place.root / "results")
    assert re.match(r"git [0-9a-f]{40}|pharos \d", version.tags["pharos.origin.code"])
    assert (merged.parent / "environment.txt").read_text() == environment_lock()
    spec = SweepSpec.model_validate_json((merged.parent / "spec.json").read_text())
    assert spec_digest(spec) == version.tags["pharos.digest.spec"]


def test_the_registered_model_and_its_adapter_load_with_plain_libraries_and_answer_alike(
    finished: FinishedSweep,
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    registered = Path(finished.result["registered"]["source"])
    merged = AutoModelForCausalLM.from_pretrained(registered, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(finished.place.root / "base", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, registered.parent / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(registered)

    data = prepared_rows(finished.place.paths.storage)
    eval_rows = open_split(data, "eval")
    for index in range(len(eval_rows)):
        tokens = torch.tensor(eval_rows.row(index)[0].tolist())[None]
        with torch.no_grad():
            torch.testing.assert_close(merged(tokens).logits, adapted(tokens).logits, rtol=1e-5, atol=1e-5)

    asked = {row["prompt"]: row["completion"] for row in rows()}
    prompts, references = open_prompts(data)
    right = {"merged": 0, "adapted": 0, "base": 0}
    for prompt, reference in zip(prompts, references, strict=True):
        question = tokenizer.decode(prompt).split("user\n")[1].split("<|im_end|>")[0]
        assert asked[question] == reference
        messages = [{"role": "user", "content": question}]
        tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        assert tokens[0].tolist() == prompt.tolist()
        for name, model in (("merged", merged), ("adapted", adapted)):
            answer = model.generate(input_ids=tokens, max_new_tokens=4, do_sample=False)[0, tokens.shape[1] :]
            right[name] += tokenizer.decode(answer, skip_special_tokens=True).strip() == reference
        with adapted.disable_adapter():
            answer = adapted.generate(input_ids=tokens, max_new_tokens=4, do_sample=False)[0, tokens.shape[1] :]
        right["base"] += tokenizer.decode(answer, skip_special_tokens=True).strip() == reference
    assert right["merged"] == right["adapted"] > right["base"]
    assert finished.result["test"]["best"]["test_exact_match"] == right["merged"] / len(prompts)
    assert finished.result["test"]["untrained_base"]["test_exact_match"] == right["base"] / len(prompts)


def test_nothing_is_written_outside_the_storage_and_nothing_keeps_running(finished: FinishedSweep) -> None:
    root = finished.place.root
    assert finished.left_running == []
    assert [path for path in (root / "home").rglob("*") if path.is_file()] == []
    assert list((root / "cwd").iterdir()) == []
    given = {"home", "cwd", "base", "rows.jsonl", "sweep.yaml", "tracking-as-it-was.db"}
    assert set(names_in(root)) - given == {"results"}
    assert set(names_in(root / "results")) == {"cache", "mlartifacts", "mlflow.db", NAME}


def test_without_a_terminal_the_output_is_plain_lines_of_our_own(finished: FinishedSweep) -> None:
    told = finished.run.stdout
    assert finished.run.stderr == ""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", told), "a control character"
    assert not re.search(r"WARN|INFO|Warning|deprecated|Traceback|it/s|ray::|File \"", told)
    for expected in (
        "6 trials over base",
        "the baseline takes seat",
        "is stopped at rung",
        "registered",
        f"small-{finished.result['best']:04d} wins",
        str(finished.place.paths.result),
        str(finished.place.paths.report),
        str(finished.place.paths.merged),
    ):
        assert expected in told


def test_the_same_command_again_returns_at_once_and_starts_nothing(finished: FinishedSweep) -> None:
    place = finished.place
    before = place.result(), len(place.events())
    process = place.start("sweep")
    seen: set[str] = set()
    while process.poll() is None:
        seen |= set(place.command_lines())
        pause()
    again = finish(process)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "COMPLETED: all trials are done" in again.stdout
    assert "starting Ray" not in again.stdout
    assert not [line for line in seen if "raylet" in line or "gcs_server" in line]
    assert (place.result(), len(place.events())) == before


def test_a_changed_spec_is_refused_with_the_difference(finished: FinishedSweep) -> None:
    place = finished.place
    before = len(place.events())
    refused = place.run("sweep", "--set", "optim.weight_decay=0.2")
    assert refused.returncode == 2
    assert "name=small is a sweep in" in refused.stderr
    assert "optim.weight_decay: 0.01 -> 0.2" in refused.stderr
    assert "Give this one another name" in refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert len(place.events()) == before


@pytest.mark.slow
def test_more_trials_extend_a_finished_sweep_and_only_they_run(finished: FinishedSweep) -> None:
    place = finished.place
    before = len(place.events())
    extended = place.run("sweep", "--set", "search.num_trials=8")
    assert extended.returncode == 0, extended.stdout + extended.stderr
    new = place.events()[before:]
    assert {event.number for event in new if isinstance(event, TrialSeated)} == {6, 7}
    trials = place.result()["trials"]
    assert trials[:NUM_TRIALS] == finished.result["trials"]
    assert [trial["number"] for trial in trials] == list(range(8))
    client = connect(place.paths.tracking_uri)
    experiment = client.get_experiment_by_name("pharos")
    assert experiment is not None
    names = [run.info.run_name for run in client.search_runs([experiment.experiment_id])]
    assert sorted(names) == [NAME, *(f"{NAME}-{number:04d}" for number in range(8))]
    assert place.processes() == []


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]
