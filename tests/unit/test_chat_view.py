"""A chat with talkers that are no models: commands, two at once, Ctrl-C, and what may not reach a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from rich.console import Console

from pharos.console.chat_view import chat
from pharos.errors import ModelError


class Parrot:
    """Says what it is told, letter by letter, and notes how it was asked."""

    def __init__(self, name: str = "parrot", *, stops_after: int | None = None) -> None:
        self.name, self.system, self.stops_after = name, "", stops_after
        self.heard: list[str] = []
        self.num_resets = 0
        self.was_closed = False

    def reset(self) -> None:
        self.num_resets += 1

    def say(self, text: str) -> Iterator[str]:
        self.heard.append(text)
        if text == "full":
            raise ModelError("parrot can read no more. Type /reset.")
        try:
            for count, letter in enumerate(text.upper()):
                if count == self.stops_after:
                    raise KeyboardInterrupt
                yield letter
        finally:
            self.was_closed = True


def run(talkers: list[Parrot], *lines: str | type[BaseException] | None, terminal: bool = False) -> str:
    said = iter([*lines, None])

    def read() -> str | None:
        line = next(said)
        if isinstance(line, type):
            raise line
        return line

    out = io.StringIO()
    chat(talkers, read=read, console=Console(file=out, force_terminal=terminal, width=60, color_system=None))
    return out.getvalue()


def test_lines_are_answered_until_one_says_q() -> None:
    parrot = Parrot()
    shown = run([parrot], "hello\n", "\n", "  list all ", "q", "never")
    assert shown.splitlines() == ["parrot: q quits, /help says more.", "HELLO", "LIST ALL"]
    assert parrot.heard == ["hello", "list all"]


def test_the_end_of_the_input_is_the_end_of_the_chat() -> None:
    assert run([Parrot()], "hello").endswith("HELLO\n")


def test_commands_are_not_said_to_the_model() -> None:
    parrot = Parrot()
    shown = run([parrot], "/system be brief", "/reset", "/help", "/sytem x", "hello")
    assert parrot.heard == ["hello"]
    assert (parrot.system, parrot.num_resets) == ("be brief", 2)
    assert "There is no /sytem.\nq or Ctrl-D" in shown
    run([parrot], "/system")
    assert (parrot.system, parrot.num_resets) == ("", 3)


def test_ctrl_c_stops_an_answer_and_not_the_chat() -> None:
    parrot = Parrot(stops_after=3)
    shown = run([parrot], "hello", KeyboardInterrupt, "bye")
    assert "HEL [stopped]\n" in shown
    assert "q or Ctrl-D leaves." in shown
    assert parrot.heard == ["hello", "bye"]
    assert parrot.was_closed


def test_what_goes_wrong_is_said_and_the_chat_goes_on() -> None:
    assert "[parrot can read no more. Type /reset.]\nHELLO\n" in run([Parrot()], "full", "hello")


def test_two_answer_one_after_the_other_in_a_pipe_and_in_columns_on_a_terminal() -> None:
    two = [Parrot("polly"), Parrot("jack")]
    assert "polly:\nHELLO\njack:\nHELLO\n" in run(two, "hello")
    shown = run(two, "hello", terminal=True)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).split("\n")[-3:]
    assert last[0].split() == ["polly", "jack"]
    assert last[1].split() == ["HELLO", "HELLO"]
    assert two[0].heard == two[1].heard == ["hello", "hello"]


def test_an_answer_cannot_command_the_terminal() -> None:
    shown = run([Parrot()], "a\x1b[2Jb\x07")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "A\\x1b[2JB\\x07" in shown
