"""What dltrain says to the user on purpose: errors, by what they mean for the command, and notes. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

LONGEST = 200
"""Characters of what a message quotes."""


class DltrainError(Exception):
    """The message is for the user: it says what is wrong and what to do. Anything else is a fault of ours."""

    exit_code = 1

    def report(self) -> str:
        """What a command prints when it ends by this."""
        return shortened(f"error: {self}")


class RequestError(DltrainError):
    """The request was wrong. Nothing was started."""

    exit_code = 2


class RunError(DltrainError):
    """A run that is not there, is in use, or cannot be continued; the message says what to do.

    fault: the kind of the machine's fault, when it was one, such as "full disk": the request itself was right.
    """

    def __init__(self, message: str, fault: str | None = None) -> None:
        super().__init__(message)
        self.fault = fault

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """1 when the disk is full, else 2: another request would do."""
        return 1 if self.fault == "full disk" else 2


@dataclass(frozen=True)
class Note:
    """What the user should know, and what stops nothing. A `warning` should be looked at.

    code: a short word for programs, which stays when the text changes. key: the option that it is about, if it is about
    one, with dots.
    """

    level: Literal["info", "warning"]
    code: str
    text: str
    key: str = ""

    def __str__(self) -> str:
        return f"warning: {self.text}" if self.level == "warning" else self.text


def shortened(text: str) -> str:
    """`text` with what it quotes cut to a length that a person can read: users may write a megabyte."""
    if len(text) <= LONGEST:
        return text
    text = re.sub(r'(["`])(.*?)\1', lambda found: found[1] + _cut(found[2], LONGEST) + found[1], text, flags=re.DOTALL)
    return _cut(text, 8 * LONGEST)


def _cut(text: str, most: int) -> str:
    """`text` without its middle where it is longer than `most`."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
