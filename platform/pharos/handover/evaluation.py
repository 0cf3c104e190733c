"""A model on rows: its loss, and how near its own answers come to the references; and what is written of it.

Loss and answers are made row by row independently of what shares a batch, so that two models can be compared by row.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from pharos.errors import StorageError
from pharos.handover.eval_rows import EvalRows
from pharos.handover.open_model import OpenModel
from pharos.model.generate import generate_answers
from pharos.model.scores import ScoredAnswers, score_answers
from pharos.train.row_losses import RowLosses, row_losses

METRICS, GENERATIONS = "metrics.json", "generations.jsonl"
SCHEMA_VERSION = 1
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What came out. answers, scores: of each row, none where nothing was generated."""

    opened: OpenModel
    rows: EvalRows
    losses: RowLosses
    loss_s: float
    answers: tuple[str, ...] = ()
    scores: ScoredAnswers | None = None
    generation_s: float = 0.0
    num_new_tokens: int = 0
    max_new_tokens: int = 0

    @property
    def metrics(self) -> dict[str, float | None]:
        """By name. Null where a number is not finite."""
        loss = self.losses.loss
        perplexity = math.exp(loss) if loss < 700 else math.inf
        measured = {"loss": loss, "perplexity": perplexity, "token_accuracy": self.losses.accuracy}
        if self.scores is not None:
            measured |= self.scores.total.to_json()
        return {name: value if math.isfinite(value) else None for name, value in measured.items()}

    def to_json(self) -> dict[str, Any]:
        found, held_out = self.opened.found, self.rows.held_out
        return {
            "schema": SCHEMA_VERSION,
            "model": found.shown,
            "model_dir": str(found.model_dir),
            "adapter_dir": None if found.adapter_dir is None else str(found.adapter_dir),
            "data": self.rows.shown,
            "data_digest": held_out.digest,
            "num_rows": len(held_out.rows),
            "num_tokens": int(self.losses.num_tokens.sum()),
            "num_skipped_rows": len(held_out.skipped),
            "notes": list(held_out.notes),
            "metrics": self.metrics,
            "generated": self.scores is not None,
            "max_new_tokens": self.max_new_tokens if self.scores else None,
            "num_new_tokens": self.num_new_tokens if self.scores else None,
            "bleu_signature": self.scores.bleu_signature if self.scores else None,
            "dtype": str(self.opened.model.dtype).removeprefix("torch."),
            "device": str(self.opened.model.device.type),
            "loss_s": round(self.loss_s, 3),
            "generation_s": round(self.generation_s, 3) if self.scores else None,
        }


def evaluate(
    opened: OpenModel,
    rows: EvalRows,
    *,
    generate: bool,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = lambda said: None,
) -> Evaluation:
    """Loss on all rows, and with `generate` a greedy answer to each, scored. progress: told what is being done."""
    held_out, total = rows.held_out, len(rows.held_out.rows)
    started_s = perf_counter()
    losses = row_losses(
        opened.model, held_out.rows, progress=lambda done, total: progress(f"loss: {done:,} of {total:,} rows")
    )
    loss_s = perf_counter() - started_s
    if not (generate and rows.asked):
        return Evaluation(opened=opened, rows=rows, losses=losses, loss_s=loss_s)
    progress(f"answering {total:,} rows")
    started_s = perf_counter()
    generated = generate_answers(
        opened.model,
        [prompt.tolist() for prompt in held_out.prompts],
        eos_id={*opened.stop_ids, *held_out.stop_ids},
        pad_id=opened.pad_id,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    generation_s = perf_counter() - started_s
    answers = tuple(text.strip() for text in opened.tokenizer.batch_decode(generated, skip_special_tokens=True))
    return Evaluation(
        opened=opened,
        rows=rows,
        losses=losses,
        loss_s=loss_s,
        answers=answers,
        scores=score_answers(answers, held_out.references),
        generation_s=generation_s,
        num_new_tokens=sum(len(answer) for answer in generated),
        max_new_tokens=max_new_tokens,
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write metrics.json and, where there are answers, generations.jsonl; a reader never sees half of them.

    An earlier evaluation there is replaced. Raises StorageError where the folder holds something else, or cannot be
    written.
    """
    if folder.exists() and not (folder / METRICS).is_file() and any(folder.iterdir()):
        raise StorageError(f"--output {folder} holds something else than an evaluation. Name another directory.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            unfinished.chmod(0o755)
            text = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
            (unfinished / METRICS).write_text(text + "\n", encoding="utf-8")
            if evaluation.scores is not None:
                _write_generations(evaluation, unfinished / GENERATIONS)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"--output {folder} cannot be written: {error.strerror or error}.") from error


def _write_generations(evaluation: Evaluation, file: Path) -> None:
    """A line a row: where it stands, prompt, answer, reference, its loss and its scores."""
    held_out, losses = evaluation.rows.held_out, evaluation.losses
    assert evaluation.scores is not None
    prompts = evaluation.opened.tokenizer.batch_decode([prompt.tolist() for prompt in held_out.prompts])
    with file.open("w", encoding="utf-8") as stream:
        for index, place in enumerate(held_out.places):
            num_tokens = int(losses.num_tokens[index])
            row = {
                "row": index,
                "place": place,
                "prompt": prompts[index],
                "answer": evaluation.answers[index],
                "reference": held_out.references[index],
                "loss": float(losses.loss_sums[index]) / num_tokens if num_tokens else None,
                **evaluation.scores.rows[index].to_json(),
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
