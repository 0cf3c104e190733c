"""A chat on a terminal, or through pipes: lines in, answers out as they come, two models side by side.

Rich alone: who answers comes in as a Protocol.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pharos.errors import PharosError

QUIT = ("q", "/q", "/quit", "/exit")
HELP = """\
q or Ctrl-D     leave
/reset          forget what was said; the system text stays
/system TEXT    tell it what it is, and begin anew; without TEXT: nothing
/help           this
Ctrl-C          stop an answer
All else is said to the model."""
STOPPED = " [stopped]"


class Talker(Protocol):
    system: str

    @property
    def name(self) -> str: ...

    def reset(self) -> None: ...

    def say(self, text: str) -> Iterator[str]: ...


def chat(talkers: Sequence[Talker], *, read: Callable[[], str | None], console: Console) -> None:
    """Read lines and show answers until a line says q or `read` has no more. One talker, or two to compare."""
    names = " and ".join(talker.name for talker in talkers)
    console.print(Text(f"{names}: q quits, /help says more.", style="dim"), soft_wrap=True)
    while True:
        try:
            line = read()
        except KeyboardInterrupt:
            console.print(Text("\nq or Ctrl-D leaves.", style="dim"))
            continue
        text = "q" if line is None else line.strip()
        if text in QUIT:
            return
        if text.startswith("/"):
            _command(text, talkers, console)
        elif text:
            _answer(text, talkers, console)


def read_line() -> str | None:
    """A line of the terminal after a prompt, or of a pipe, which is then shown; none at the end."""
    if sys.stdin.isatty():
        try:
            return input("> ")
        except EOFError:
            print()
            return None
    line = sys.stdin.readline()
    if not line:
        return None
    print(f"> {line.rstrip()}", flush=True)
    return line


def _command(text: str, talkers: Sequence[Talker], console: Console) -> None:
    command, _, rest = text.partition(" ")
    if command == "/reset":
        said = "Forgotten."
    elif command == "/system":
        for talker in talkers:
            talker.system = rest.strip()
        said = "It begins anew with that." if rest.strip() else "It begins anew without a system text."
    else:
        unknown = "" if command == "/help" else f"There is no {command}.\n"
        console.print(Text(unknown + HELP, style="dim"))
        return
    for talker in talkers:
        talker.reset()
    console.print(Text(said, style="dim"))


def _answer(text: str, talkers: Sequence[Talker], console: Console) -> None:
    if len(talkers) > 1 and console.is_terminal:
        _side_by_side(text, talkers, console)
        return
    for talker in talkers:
        if len(talkers) > 1:
            console.print(Text(f"{talker.name}:", style="bold"), soft_wrap=True)
        for piece in _pieces(talker, text):
            console.file.write(piece)
            console.file.flush()
        console.file.write("\n")
    console.file.flush()


def _side_by_side(text: str, talkers: Sequence[Talker], console: Console) -> None:
    """Both answers in columns that grow, one after the other; what stands at the end stays."""
    answers = [""] * len(talkers)

    def columns() -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="bold")
        for talker in talkers:
            table.add_column(talker.name, ratio=1)
        table.add_row(*(Text(answer) for answer in answers))
        return table

    with Live(columns(), console=console, transient=True, refresh_per_second=12) as live:
        for index, talker in enumerate(talkers):
            for piece in _pieces(talker, text):
                answers[index] += piece
                live.update(columns())
    console.print(columns())


def _pieces(talker: Talker, text: str) -> Iterator[str]:
    """The answer as it may be shown; Ctrl-C stops it, and what goes wrong is said in its place."""
    try:
        with closing(talker.say(text)) as said:  # type: ignore[type-var]
            for piece in said:
                yield _printable(piece)
    except KeyboardInterrupt:
        yield STOPPED
    except PharosError as error:
        yield f"[{error.message}]"


def _printable(text: str) -> str:
    """What a model writes is not to move the cursor or to name the window."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
