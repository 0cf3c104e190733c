"""The command line itself, to which the modules beside this one add their verbs."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

TRAIN, CLUSTER, COMPARE, USE = "Train", "On a cluster, or in another terminal", "Compare and repeat", "Use a model"
"""Panels of `pharos --help`."""
ORDER = (
    *("plan", "sweep", "train", "top", "data"),
    *("doctor", "submit", "status", "logs", "stop", "resume", "watch-notices"),
    *("compare", "report", "ui", "rerun"),
    *("models", "promote", "rollback", "eval", "chat", "export", "merge"),
)
"""Verbs as `pharos --help` lists them; the others follow."""


class _Ordered(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="pharos",
    cls=_Ordered,
    help="Search and train LoRA fine-tunes: many trials at once over one frozen, sharded base.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
