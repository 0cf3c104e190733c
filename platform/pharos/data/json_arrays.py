"""The elements of a JSON array of any size, cut out as text without holding the array; and JSON that may be anything.

Pure but for reading the stream. Mistakes are given as json gives them, with line and column in the whole file.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

READ_BYTES = 1 << 20
UNSURE_CHARACTERS = 16
"""An error so near to the end of what was read may be only a value that is cut off there."""
BOM = "\ufeff"
_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"


def parse_json(text: str) -> tuple[Any, json.JSONDecodeError | None]:
    """The value of a text, or what is wrong with it."""
    try:
        return json.loads(text), None
    except json.JSONDecodeError as error:
        return None, error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        return None, json.JSONDecodeError(f"{type(error).__name__}: {error}", text, 0)


def array_elements(stream: BinaryIO, mistakes: list[str], *, max_characters: int) -> Iterator[str]:
    """The text of each element of the array that a stream holds, in order.

    Stops where the array is malformed, with `:line:column: what` appended to `mistakes`, or, where its bytes are not
    UTF-8, `: what`.
    """
    text = _Text(stream)
    try:
        text.skip_space()
        text.position += 1  # the opening bracket, for which the caller looked
        while True:
            text.skip_space()
            if text.peek() == "]" and text.num_elements == 0:
                break
            yield text.element(max_characters)
            text.skip_space()
            if text.peek() == "]":
                break
            if text.peek() != ",":
                raise text.error("Expecting ',' delimiter", text.position)
            text.position += 1
        text.position += 1
        text.skip_space()
        if text.peek():
            raise text.error("Extra data", text.position)
    except _Malformed as error:
        mistakes.append(str(error))


class _Malformed(Exception):
    """The array cannot be read on; the message says where and why."""


class _Text:
    """What was read of the stream and not used up yet, and how many lines and characters were used up before."""

    def __init__(self, stream: BinaryIO) -> None:
        self.position = 0
        self.num_elements = 0
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._num_bytes = 0
        self._num_lines = 0
        self._line_start = 0  # how many characters of the present line were used up
        self._is_at_end = False
        self._has_begun = False

    def peek(self) -> str:
        """The character at the position, nothing at the end of the file."""
        while self.position >= len(self._buffer) and not self._is_at_end:
            self._read(READ_BYTES)
        return self._buffer[self.position : self.position + 1]

    def skip_space(self) -> None:
        while (character := self.peek()) and character in _SPACE:
            self.position += 1

    def element(self, max_characters: int) -> str:
        """The text of the value that begins here; the position is behind it afterwards."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._buffer, self.position)
                if end < len(self._buffer) or self._is_at_end:
                    element = self._buffer[self.position : end]
                    self.position = end
                    self.num_elements += 1
                    return element
            except json.JSONDecodeError as error:
                is_open = error.msg.startswith("Unterminated string")
                if self._is_at_end or (not is_open and error.pos < len(self._buffer) - UNSURE_CHARACTERS):
                    raise self.error(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.error(f"{type(error).__name__}: {error}", self.position) from error
            size = len(self._buffer) - self.position
            if size > max_characters:
                raise self.error(f"a row of more than {max_characters >> 20} MiB", self.position)
            self._read(max(READ_BYTES, size))  # twice as much, so that a huge row costs linear time

    def error(self, message: str, position: int) -> _Malformed:
        before = self._buffer[:position]
        line = self._num_lines + before.count("\n") + 1
        in_line = position - (before.rfind("\n") + 1)
        column = in_line + 1 + (self._line_start if "\n" not in before else 0)
        return _Malformed(f":{line}:{column}: not JSON: {message}.")

    def _drop_used(self) -> None:
        used = self._buffer[: self.position]
        if "\n" in used:
            self._num_lines += used.count("\n")
            self._line_start = len(used) - used.rfind("\n") - 1
        else:
            self._line_start += len(used)
        self._buffer, self.position = self._buffer[self.position :], 0

    def _read(self, size: int) -> None:
        self._drop_used()
        block = self._stream.read(size)
        waiting = len(self._decoder.getstate()[0])
        try:
            new = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            at = self._num_bytes - waiting + error.start
            byte = error.object[error.start]
            raise _Malformed(
                f": not UTF-8: byte 0x{byte:02x} at offset {at:,} of the file. Convert it to UTF-8."
            ) from error
        if new and not self._has_begun:
            new, self._has_begun = new.removeprefix(BOM), True
        self._buffer += new
        self._num_bytes += len(block)
        self._is_at_end = not block
