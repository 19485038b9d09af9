"""SIGINT, SIGTERM and SIGHUP while a run is being made: noted, and acted upon between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C, a request to end, and a terminal that goes away."""


class Signals:
    """Notes the first signal in `received`; a second one raises KeyboardInterrupt where the program stands.

    One within another (a training of a sweep) shares what it has received, so that no signal is lost between
    the two.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._outer: Signals | None = None

    def __enter__(self) -> Signals:
        for number in NUMBERS:
            if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started with `nohup`, say
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: leave signals to whoever is
                break
        owners = [getattr(handler, "__self__", None) for handler in self._before.values()]
        self._outer = next((owner for owner in owners if isinstance(owner, Signals)), None)
        if self._outer is not None:
            self.received = self._outer.received
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._outer is not None:
            self._outer.received = self.received

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        with contextlib.suppress(OSError):  # the terminal may be gone; print is not safe in a handler
            os.write(2, b"\nstopping after this step; a second time stops at once\n")
