"""Figures of an evaluation against plain transformers, and files that are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from pharos.errors import ModelError, StorageError
from pharos.handover import evaluation as module
from pharos.handover.eval_rows import EvalRows, Wishes, eval_rows
from pharos.handover.evaluation import Evaluation, evaluate, write_evaluation
from pharos.handover.open_model import open_model
from pharos.handover.references import FoundModel


@pytest.fixture
def rows(model_dir: Path, rows_file: Path) -> EvalRows:
    found = FoundModel(shown="model", model_dir=model_dir)
    return eval_rows(str(rows_file), found, storage=rows_file.parent, wishes=Wishes(max_rows=12))


@pytest.fixture
def evaluated(model_dir: Path, rows: EvalRows) -> Evaluation:
    opened = open_model(FoundModel(shown="model", model_dir=model_dir))
    return evaluate(opened, rows, generate=True, max_new_tokens=4, batch_size=5)


def test_loss_and_answers_are_those_of_plain_transformers(
    evaluated: Evaluation, rows: EvalRows, model_dir: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    total, count, right = 0.0, 0, 0
    for index, prompt in enumerate(rows.held_out.prompts):
        tokens, trained = rows.held_out.rows.row(index)
        labels = torch.tensor([[int(token) if on else -100 for token, on in zip(tokens, trained, strict=True)]])
        with torch.no_grad():
            answer = model(input_ids=torch.tensor([tokens.tolist()]), labels=labels)
            generated = model.generate(
                input_ids=torch.tensor([prompt.tolist()]), max_new_tokens=4, do_sample=False,
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            )  # fmt: skip
        num = int((labels[0, 1:] != -100).sum())
        total, count = total + float(answer.loss) * num, count + num
        right += int((answer.logits[0, :-1].argmax(-1) == labels[0, 1:]).sum())
        text = tokenizer.decode(generated[0, len(prompt) :], skip_special_tokens=True).strip()
        assert evaluated.answers[index] == text
    assert evaluated.metrics["loss"] == pytest.approx(total / count, rel=1e-5)
    assert evaluated.metrics["perplexity"] == pytest.approx(torch.tensor(total / count).exp().item(), rel=1e-4)
    assert evaluated.metrics["token_accuracy"] == pytest.approx(right / count)


def test_what_is_written_is_what_was_found(evaluated: Evaluation, rows: EvalRows, tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "model-rows"
    write_evaluation(evaluated, folder)
    record = json.loads((folder / "metrics.json").read_text())
    assert record["metrics"] == evaluated.metrics
    assert set(record["metrics"]) == {
        *("loss", "perplexity", "token_accuracy"),
        *("exact_match", "bleu_4", "rouge_1", "rouge_2", "rouge_l"),
    }
    lines = [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]
    assert [line["reference"] for line in lines] == rows.held_out.references
    assert [line["answer"] for line in lines] == list(evaluated.answers)
    assert "<|im_start|>user" in lines[0]["prompt"]
    weighted = sum(line["loss"] * int(count) for line, count in zip(lines, evaluated.losses.num_tokens, strict=True))
    assert weighted / int(evaluated.losses.num_tokens.sum()) == pytest.approx(record["metrics"]["loss"])


def test_a_second_evaluation_replaces_the_first_whole(
    evaluated: Evaluation, rows: EvalRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "eval"
    write_evaluation(evaluated, folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(module, "_write_generations", fail)
        with pytest.raises(StorageError, match="cannot be written: No space left on device"):
            write_evaluation(evaluated, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before

    without = evaluate(evaluated.opened, rows, generate=False, max_new_tokens=4, batch_size=5)
    write_evaluation(without, folder)
    assert [path.name for path in folder.iterdir()] == ["metrics.json"]
    assert [path.name for path in tmp_path.glob("*eval*")] == ["eval"]


def test_a_folder_of_something_else_is_left_alone(evaluated: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds something else than an evaluation"):
        write_evaluation(evaluated, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_adapter_counts_and_one_of_another_base_is_refused(
    model_dir: Path, rows: EvalRows, evaluated: Evaluation, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    adapted = FoundModel(shown="adapter", model_dir=model_dir, adapter_dir=tmp_path / "adapter")
    with_adapter = evaluate(open_model(adapted), rows, generate=False, max_new_tokens=4, batch_size=5)
    assert with_adapter.metrics["loss"] != evaluated.metrics["loss"]

    written = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    renamed = written.replace(b"layers.1.", b"layers.9.")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(renamed)
    with pytest.raises(ModelError, match="adapter does not fit .*layers.9"):
        open_model(adapted)
