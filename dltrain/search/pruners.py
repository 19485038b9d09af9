"""The kind `Pruner`: which trials of a search are ended early, by what they reached so far."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dltrain.config import Choice, NonNegativeInt, PositiveInt
from dltrain.search.judging import Judge

if TYPE_CHECKING:
    from dltrain.search.impl.pruners import Bracketed, Median


class Pruner(Choice):
    """Ends trials that promise little, so that the others get their time."""

    kind: ClassVar[str] = "pruners"
    not_offered: ClassVar[Mapping[str, str]] = {
        "asha": "asynchronous successive halving is `successive_halving`",
        "percentile": "the rule of the median is `median`",
    }
    resumes: ClassVar[bool] = False
    """Whether a trial that was ended early may go on later, from its checkpoint."""

    @abstractmethod
    def build(self, epochs: int) -> Judge:
        """What judges trials of so many epochs."""


class MedianPruner(Pruner):
    """Ends a trial whose best value so far is worse than the median of the other trials' values at the same epoch."""

    source = "https://doi.org/10.1145/3097983.3098043"
    name: Literal["median"] = "median"
    startup_trials: PositiveInt = 5
    """Other trials that must have a value at that epoch before any trial is ended."""
    warmup_epochs: NonNegativeInt = 1
    """Epochs that every trial trains."""

    def build(self, epochs: int) -> Median:
        from dltrain.search.impl.pruners import Median

        return Median(self.startup_trials, self.warmup_epochs, epochs)


class SuccessiveHalving(Pruner):
    """Asynchronous successive halving (ASHA): a trial pauses after 1, 3, 9, ... epochs, and the best third of those
    that came so far go on, each from its checkpoint.

    A pause is no end: whenever a worker is free, the best paused trial that belongs to the best third goes on before a
    new one begins. One worker makes of a seed always the same search; with several, which trials had come so far when
    one was judged depends on how fast each was.
    """

    source = "https://arxiv.org/abs/1810.05934"
    name: Literal["successive_halving"] = "successive_halving"
    resumes = True
    min_epochs: PositiveInt = 1
    """Epochs until the first pause."""
    factor: Annotated[int, Field(ge=2)] = 3
    """One trial of so many goes on after a pause, to so many times the epochs."""

    def build(self, epochs: int) -> Bracketed:
        from dltrain.search.impl.pruners import Bracketed, Rungs

        return Bracketed([Rungs(self.min_epochs, self.factor, epochs)], self.factor)


class Hyperband(Pruner):
    """Successive halving from several first pauses at once: where short trainings mislead, some trials train longer
    before they are judged.

    Trial k belongs to one bracket, a function of k alone; bracket b has its first pause after min_epochs factor^b
    epochs. Trials are dealt out so that each bracket trains about equally many epochs.
    """

    source = "https://arxiv.org/abs/1603.06560"
    name: Literal["hyperband"] = "hyperband"
    resumes = True
    min_epochs: PositiveInt = 1
    """Epochs until the first pause of the first bracket."""
    factor: Annotated[int, Field(ge=2)] = 3
    """One trial of so many goes on after a pause, to so many times the epochs."""

    def build(self, epochs: int) -> Bracketed:
        from dltrain.search.impl.pruners import Bracketed, brackets

        return Bracketed(brackets(self.min_epochs, self.factor, epochs), self.factor)
