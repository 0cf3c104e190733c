"""The command line itself, to which the modules beside this one add their verbs."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="pharos",
    help="Search and train LoRA fine-tunes: many trials at once over one frozen, sharded base.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
