"""How an error looks: its one message, and no traceback."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from pharos.errors import PharosError


def show_error(error: PharosError, *, console: Console | None = None) -> None:
    """Print the message as it is written, on stderr by default; lines are never broken, so that paths stay whole."""
    console = console or Console(stderr=True, highlight=False)
    console.print(Text("error: ", style="bold red") + Text(error.message), soft_wrap=True)
