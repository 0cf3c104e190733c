"""What an evaluation found, as a table, with where it was written and what to type next."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pharos.plan import words

MEANING = {
    "loss": "mean over {tokens} trained tokens, in nats",
    "perplexity": "exp of the loss",
    "token_accuracy": "trained tokens that the model puts first",
    "exact_match": "answers that are the reference",
    "bleu_4": "of the corpus; sacrebleu, {tokenizer}",
    "rouge_1": "F1 of words, mean over rows",
    "rouge_2": "F1 of pairs of words",
    "rouge_l": "F1 of the longest common sequence",
}


def show_evaluation(evaluation: dict[str, Any], *, folder: str, chat_command: str, console: Console) -> None:
    """Print an evaluation as `to_json` gives it. folder: where it was written. chat_command: what to type next."""
    rows = words.plural(evaluation["num_rows"], "row")
    title = Text(evaluation["model"], style="bold").append(f"  on {rows} of {evaluation['data']}", style="not bold")
    console.print(title, soft_wrap=True)
    signature = dict(part.split(":", 1) for part in (evaluation["bleu_signature"] or "").split("|") if ":" in part)
    told = {"tokens": f"{evaluation['num_tokens']:,}", "tokenizer": f"tokenizer {signature.get('tok', '')}"}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for name, value in evaluation["metrics"].items():
        table.add_row(name, words.metric(name, value), MEANING.get(name, "").format(**told))
    console.print(table)
    if evaluation["num_skipped_rows"]:
        left_out = words.plural(evaluation["num_skipped_rows"], "row")
        console.print(Text(f"{left_out} left out: longer than --max-length, or without a trained token", "yellow"))
    for note in evaluation["notes"]:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(Text(_work(evaluation), style="dim"), soft_wrap=True)
    lines = [("metrics", f"{folder}/metrics.json")]
    if evaluation["generated"]:
        lines.append(("answers", f"{folder}/generations.jsonl"))
    for name, line in [*lines, ("talk to it", chat_command)]:
        console.print(Text(f"{name:<12}", style="dim") + Text(line), soft_wrap=True)


def _work(evaluation: dict[str, Any]) -> str:
    where = f"{evaluation['dtype']} on {evaluation['device']}"
    told = [f"loss in {evaluation['loss_s']:.1f} s"]
    if evaluation["generated"]:
        new, seconds = evaluation["num_new_tokens"], evaluation["generation_s"]
        told.append(f"{new:,} tokens of answers, {evaluation['max_new_tokens']} a row at most, in {seconds:.1f} s")
    return f"{'; '.join(told)}; {where}"
