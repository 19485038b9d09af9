"""SIGINT and SIGTERM while a run is being made: noted, and acted upon between two steps."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Signals:
    """Notes the first signal in `received`; a second one raises KeyboardInterrupt where the program stands."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: leave signals to whoever is
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
