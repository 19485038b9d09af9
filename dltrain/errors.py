"""What dltrain raises on purpose, by what it means for the command: each error knows its exit code. No torch."""

from __future__ import annotations


class DltrainError(Exception):
    """The message is for the user: it says what is wrong and what to do. Anything else is a fault of ours."""

    exit_code = 1


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
