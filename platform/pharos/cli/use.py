"""The verbs that use a model: eval, chat."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from pharos.cli.app import USE, app
from pharos.cli.options import STORAGE, SweepStorage, typed_again

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME@ALIAS or NAME/3 in the registry, SWEEP-0007, or a directory: merged, or an adapter with its base.",
        show_default=False,
    ),
]
Registry = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow of the registry (default: SQLite in the storage).")
]
Base = Annotated[Path | None, typer.Option(help="Directory of the base, of an adapter whose base has moved.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(help="auto: bfloat16 on a GPU, float32 on a CPU.")
]


@app.command("eval", rich_help_panel=USE)
def evaluate(
    model: Model,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Rows as data.train names them: a file, a glob, hub:owner/name; or of a sweep: SWEEP:test, "
            "sweep.yaml:eval.",
            show_default=False,
        ),
    ],
    storage: SweepStorage = STORAGE,
    tracking_uri: Registry = None,
    base: Base = None,
    template: Annotated[str | None, typer.Option(help="As data.template (default: the model's own).")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens a row may have (default: the model's, or the sweep file's).")
    ] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Only the first so many rows.")] = None,
    generate: Annotated[
        bool, typer.Option("--generate/--no-generate", help="Also answer the rows and score the answers.")
    ] = True,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer (default: the sweep's, else 128).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows answered at a time.")] = 32,
    dtype: Dtype = "auto",
    output: Annotated[
        Path | None, typer.Option(help="Where metrics and answers go (default: STORAGE/eval/MODEL-DATA).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object.")] = False,
) -> None:
    """Loss, perplexity and accuracy of a model on rows; by generation exact match, BLEU-4 and ROUGE."""
    from rich.console import Console

    from pharos import console
    from pharos.handover.eval_rows import Wishes, eval_rows
    from pharos.handover.references import find_model

    found = find_model(model, storage=storage, tracking_uri=tracking_uri, base=base)
    wishes = Wishes(template=template, max_length=max_length, max_rows=max_rows)
    rows = eval_rows(data, found, storage=storage, wishes=wishes)
    folder = output or storage / "eval" / _slug(f"{found.shown}-{data}")
    with Console(stderr=True).status("loading the model") as status:
        from pharos.handover.evaluation import evaluate, write_evaluation
        from pharos.handover.open_model import open_model

        evaluation = evaluate(
            open_model(found, dtype=dtype),
            rows,
            generate=generate,
            max_new_tokens=max_new_tokens or rows.max_new_tokens or 128,
            batch_size=batch_size,
            progress=status.update,
        )
    write_evaluation(evaluation, folder)
    if as_json:
        typer.echo(json.dumps(evaluation.to_json() | {"output": str(folder)}, ensure_ascii=False, indent=2))
    else:
        options = [*typed_again(storage, tracking_uri), *(["--base", str(base)] if base else [])]
        console.show_evaluation(
            evaluation.to_json(),
            folder=str(folder),
            chat_command=shlex.join(["pharos", "chat", model, *options]),
            console=Console(highlight=False),
        )
        if generate and not rows.asked:
            typer.echo("No answers were generated: these rows hold no questions, only what follows them.")


@app.command(rich_help_panel=USE)
def chat(
    model: Model,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model, which answers the same beside it.")
    ] = None,
    system: Annotated[str, typer.Option(help="What the model is told before all.")] = "",
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0: greedy (default: the model's own).")] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Default: the model's own.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Where answers are drawn: draw the same again.")] = None,
    storage: SweepStorage = STORAGE,
    tracking_uri: Registry = None,
    base: Base = None,
    dtype: Dtype = "auto",
) -> None:
    """Talk to a model, in its own template; /help says how. Reads lines of a pipe as well."""
    from rich.console import Console

    from pharos import console
    from pharos.handover.references import find_model

    found = [find_model(model, storage=storage, tracking_uri=tracking_uri, base=base)]
    if against is not None:
        found.append(find_model(against, storage=storage, tracking_uri=tracking_uri))
    with Console(stderr=True).status("loading the model"):
        from pharos.handover.chat import ChatSettings, talker
        from pharos.handover.open_model import open_model

        settings = ChatSettings(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
        talkers = [talker(open_model(one, dtype=dtype), settings, system=system) for one in found]
    console.chat(talkers, read=console.read_line, console=Console(highlight=False))


def _slug(text: str) -> str:
    """A name of a folder: what is no letter, digit, dot or underscore becomes a hyphen."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:120]
