"""One training of a stack as whoever runs it sees it: a trainer like any other. Imports torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from dltrain.data.types import Batch
from dltrain.engine.stacked.training import StackedTraining
from dltrain.engine.trainer import Trainer
from dltrain.runs.reports import EpochReport, NonFiniteError, Progress


def members_of(training: StackedTraining, progress_seconds: float = 0.25) -> list[Trainer]:
    """The trainings of a stack, each a trainer whose `run` yields what it has to say. Whoever asks one that has nothing
    left to say lets all go on, so they are to be asked in turn."""
    rounds = training.run(progress_seconds=progress_seconds)
    waiting: list[deque[Progress | EpochReport | NonFiniteError]] = [deque() for _ in training.trainers]
    return [cast(Trainer, Member(training, rounds, waiting, index)) for index in range(len(waiting))]


class Member:
    """A trainer of a stack. All but `run` is the trainer's own."""

    def __init__(
        self, training: StackedTraining, rounds: Iterator[Any],
        waiting: list[deque[Progress | EpochReport | NonFiniteError]], index: int,
    ) -> None:  # fmt: skip
        self._training, self._rounds, self._waiting, self._index = training, rounds, waiting, index
        self._trainer = training.trainers[index]

    def run(self, watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter) -> Iterator[Progress | EpochReport]:
        """See Trainer. watch: of no use here, where the batches are those of all."""
        own = self._waiting[self._index]
        try:
            while own or not self._trainer.finished:
                while not own:
                    for waiting, event in zip(self._waiting, next(self._rounds), strict=True):
                        if event is not None:
                            waiting.append(event)
                event = own.popleft()
                if isinstance(event, NonFiniteError):
                    raise event
                yield event
        finally:
            self._training.stop(self._index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)
