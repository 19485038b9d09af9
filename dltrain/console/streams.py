"""The one way to the terminal. What is printed can neither end the program nor steer a terminal.

    results  -> print_result() -> sys.stdout        messages -> say(), console.Display -> sys.stderr

`guard` puts a `Stream` in the place of both, so that this also holds for what libraries print. Imports nothing heavy.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from typing import TextIO, cast

from dltrain.errors import DltrainError

PLAIN = dict(zip("│└─…×·–—‘’“”▁▂▃▄▅▆▇█", "|+-~x.--''\"\"...:::##", strict=True))
"""What is shown on a terminal that has no such character; others are shown by their number, `\\u65e5`."""
JOINERS = "\u200c\u200d"
"""Invisible, and part of words in some scripts and of some emoji."""


def printable(text: str, keep: str = "") -> str:
    """`text` with control and invisible characters, all but those in `keep`, as escapes such as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class OutputError(DltrainError):
    """Results cannot be written; the message says why."""


class Stream(io.TextIOWrapper):
    """Text to a file, pipe or terminal that may have another encoding, or go away.

    is_needed: whether the program is in vain when this is not read: once, `write` then raises BrokenPipeError when the
    reader has gone, and OutputError when a disk is full, say. Else what cannot be written is dropped.
    keep: the control characters that may pass; None: all of them.
    """

    styled: Stream
    """Of stderr: the same for text with control characters of our own, such as colours."""

    def __init__(self, number: int, like: TextIO | None, *, is_needed: bool, keep: str | None) -> None:
        """like: the stream of this file so far, if it was open."""
        file = open(number, "wb", closefd=False)  # noqa: SIM115
        by_line = like is None or getattr(like, "line_buffering", True)
        super().__init__(file, like.encoding if like else "utf-8", "dltrain-shown", line_buffering=by_line)
        self.is_needed, self.keep = is_needed, keep

    def write(self, text: str) -> int:
        """Write; the number of characters in `text`."""
        try:
            super().write(text if self.keep is None else printable(text, self.keep))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Write what has not been written yet."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """It cannot be written: send the rest, and what other code writes to this file, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if self.is_needed and error.errno in (errno.EPIPE, errno.EIO):  # a pipe, and a terminal that has gone away
            raise BrokenPipeError from None
        if self.is_needed:
            raise OutputError(f"the results cannot be written: {(error.strerror or str(error)).lower()}") from None


def guard() -> None:
    """Let all that this process prints go through a `Stream`."""
    for number in range(3):  # a closed one would else become the next file that is opened, such as a checkpoint
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error("dltrain-shown", _shown)
    output, messages = sys.stdout, sys.stderr
    sys.stdout = Stream(1, output, is_needed=True, keep="\n\t" + JOINERS if os.isatty(1) else None)
    sys.stderr = Stream(2, messages, is_needed=False, keep="\n\t\r" + JOINERS)
    sys.stderr.styled = Stream(2, messages, is_needed=False, keep=None)


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """What to write for characters that the encoding lacks. Those that stand for bytes of a file's name that is not
    UTF-8 become these bytes again, so that a program that reads the name finds the file."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    if all("\udc80" <= c <= "\udcff" for c in found):
        return bytes(ord(c) - 0xDC00 for c in found), error.end
    character = found[0]
    return PLAIN.get(character) or character.encode("unicode_escape").decode(), error.start + 1


def print_result(text: str) -> None:
    """A result, on stdout. When its reader has gone, such as `head`, that is no error."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def say(text: str) -> None:
    """A message, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def styled() -> TextIO:
    """stderr for text with control characters that are the program's own, such as colours."""
    return cast(TextIO, getattr(sys.stderr, "styled", sys.stderr))
