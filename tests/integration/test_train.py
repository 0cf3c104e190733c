"""`pharos train`: one fine-tune split over two workers, the same as the same fine-tune in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.small_sweep import (
    Finished,
    Workplace,
    largest_difference,
    prepared_rows,
    spec_fields,
    steps_of,
    train_alone,
    workplace,
)
from transformers import AutoTokenizer

from pharos.data.prepare import open_split
from pharos.data.template import FOLDER
from pharos.spec.load import load_spec
from pharos.track.mlflow_client import connect

pytestmark = pytest.mark.timeout(600)  # the first test runs the fine-tune

CURVE_TOLERANCE = 1e-5
BATCH_SIZE, MICRO_BATCH_SIZE, NUM_WORKERS = 8, 2, 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Iterator[tuple[Workplace, Finished]]:
    """A sweep file's own values, trained once. Two workers with micro-batches of 2 rows: two clocks a step."""
    place = workplace(
        tmp_path_factory.mktemp("train"),
        small_base,
        train={"max_steps": 12, "batch_size": BATCH_SIZE, "micro_batch_size": MICRO_BATCH_SIZE, "report_every": 4},
        data=spec_fields()["data"] | {"template": "chatml"},
        optim={"learning_rate": 5e-3, "weight_decay": 0.01, "max_grad_norm": 0.5},
        search=spec_fields()["search"] | {"space": {"lora.r": {"ordered": [2, 4]}}, "num_trials": 2},
    )
    place.name = "small-train"
    try:
        run = place.run("train")
        assert run.returncode == 0, run.stdout + run.stderr
        yield place, run
    finally:
        place.end_everything()


def test_it_trains_the_files_own_values_in_one_seat_over_all_workers(trained: tuple[Workplace, Finished]) -> None:
    place, run = trained
    result = place.result()
    assert result["sweep"] == "small-train"
    assert (result["state"], run.stderr) == ("COMPLETED", "")
    [trial] = result["trials"]
    assert (trial["number"], trial["state"], trial["params"], trial["steps"]) == (0, "COMPLETED", {}, 12)
    assert trial["clocks"] == 12 * BATCH_SIZE // (MICRO_BATCH_SIZE * NUM_WORKERS)
    assert result["pool"] == {
        "workers": NUM_WORKERS,
        "seats": 1,
        "placement": "data_parallel",
        "sharding": "zero3",
        "restarts": 0,
        "count": 1,
    }
    assert result["work"]["occupancy"] == 1.0
    assert result["test"]["best"]["test_loss"] < result["test"]["untrained_base"]["test_loss"]
    assert place.processes() == []


def test_the_model_keeps_the_template_that_its_rows_were_written_with(trained: tuple[Workplace, Finished]) -> None:
    place, _ = trained
    tokenizer = AutoTokenizer.from_pretrained(place.paths.merged)
    assert tokenizer.chat_template == (FOLDER / "chatml.jinja").read_text(encoding="utf-8")
    question = tokenizer.apply_chat_template([{"role": "user", "content": "on"}], tokenize=False)
    assert question == "<|im_start|>user\non<|im_end|>\n"


def test_its_curve_is_that_of_one_process_with_the_same_global_batch(
    trained: tuple[Workplace, Finished], tmp_path: Path
) -> None:
    place, _ = trained
    alone = train_alone(
        load_spec(place.spec, [f"train.micro_batch_size={MICRO_BATCH_SIZE * NUM_WORKERS}"]),
        place.ledger().trials[0].plan,
        base=place.root / "base",
        data=prepared_rows(place.paths.storage),
        trials=tmp_path,
        report_every=4,
    )
    assert len(steps_of(place.events(), 0)) == len(alone.steps) == 12
    assert largest_difference(place.events(), 0, alone) < CURVE_TOLERANCE
    assert any(step.grad_norm > 0.5 for step in alone.steps), "clipping must have had something to do"


def test_it_is_tracked_merged_and_registered_like_a_sweep(trained: tuple[Workplace, Finished]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    place, _ = trained
    client = connect(place.paths.tracking_uri)
    experiment = client.get_experiment_by_name("pharos")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["small-train", "small-train-0000"]
    history = client.get_metric_history(runs["small-train-0000"].info.run_id, "loss")
    logged = {step["step"]: step["loss"] for step in steps_of(place.events(), 0)}
    assert {point.step: point.value for point in history} == logged

    [version] = client.search_model_versions("name = 'switch'")
    assert client.get_registered_model("switch").aliases == {"candidate": version.version}
    assert version.tags["pharos.sweep"] == "small-train"
    registered = Path(place.result()["registered"]["source"])
    merged = AutoModelForCausalLM.from_pretrained(registered, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(place.root / "base", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, registered.parent / "adapter").eval()
    tokens = torch.tensor(open_split(prepared_rows(place.paths.storage), "eval").row(0)[0].tolist())[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, adapted(tokens).logits, rtol=1e-5, atol=1e-5)
