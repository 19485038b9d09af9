"""The settings of a sweep's trials, one at a time: a pure function of the sweep, the seed and what trials have told.

A sweep and earlier trials flow in, the setting of the next one flows out. Nothing has to be kept between calls, so that
a search goes on in any process that knows its trials.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dltrain.search.conditions import Space
from dltrain.search.narrowing import narrowed
from dltrain.search.samplers import Sampler
from dltrain.search.space import Range
from dltrain.search.sweep import Sweep
from dltrain.search.trials import Setting, Told

if TYPE_CHECKING:
    from dltrain.search.impl.sampling import Sampling


class Settings:
    """What the trials of a sweep try. decided: the sampler and why, as a sweep that goes on has it from its start."""

    def __init__(self, sweep: Sweep, seed: int, decided: tuple[Sampler, str] | None = None) -> None:
        self.sweep, self.seed = sweep, seed
        self.sampler, self.why = decided or sweep.decided()
        """The sampler that draws, and why it is that one where the sweep leaves it open."""
        self._starts = [part * sweep.planned // sweep.rounds for part in range(sweep.rounds)]
        self._last: tuple[object, Sampling] | None = None  # spares drawing a sequence anew from its start

    @property
    def settled(self) -> bool:
        """Whether trial k is a function of (seed, k) alone; else one that has begun keeps the setting that it has."""
        return not self.sampler.learns and self.sweep.rounds == 1

    def recorded(self, index: int, values: dict[str, Any]) -> Setting:
        """The setting of a trial that has begun, from the values that were recorded."""
        return Setting(self.sweep.whole.drawn(values), values, self.round_of(index))

    def draw(self, index: int, told: Sequence[Told] = ()) -> Setting | None:
        """The setting of trial `index`, given what is known of the others; None when the space has no setting left.

        Those of the first `waits_for(index)` must have ended.
        """
        round_ = self.round_of(index)
        if self.settled:
            told = ()
        told = self._known(trial for trial in told if trial.index != index)
        space = Space(self.ranges(round_, told), self.sweep.whole.conditions, self.sweep.space)
        here = [trial for trial in told if space.holds(trial.drawn)]
        drawn = self._sampling(round_, space, here).draw(index, here, {space.identity(trial.drawn) for trial in here})
        if drawn is None and self.sweep.rounds > 1:  # of what the round was narrowed to; but not of the whole
            drawn = self._among_all(index, told)
        return None if drawn is None else Setting(drawn, space.values(drawn), round_)

    def _sampling(self, round_: int, space: Space, here: Sequence[Told]) -> Sampling:
        first = self._starts[round_]
        tried = frozenset(space.identity(trial.drawn) for trial in here if trial.index < first)
        key = (round_, repr(space.ranges), tried)
        if self._last is None or self._last[0] != key:
            self._last = key, self.sampler.build(space, self.seed, first, tried)
        return self._last[1]

    def _among_all(self, index: int, told: Sequence[Told]) -> dict[str, Any] | None:
        from dltrain.search.impl.sampling import Chance

        whole = self.sweep.whole
        return Chance(whole, self.seed).new(index, {whole.identity(trial.drawn) for trial in told})

    def _known(self, told: Iterable[Told]) -> list[Told]:
        """Trials by their index, numbers as they were tried."""
        by_index = sorted(told, key=lambda trial: trial.index)
        return [replace(trial, drawn=self.sweep.whole.rounded(trial.drawn)) for trial in by_index]

    def round_of(self, index: int) -> int:
        """The round of a trial."""
        return bisect_right(self._starts, index) - 1

    def waits_for(self, index: int) -> int:
        """How many first trials must have ended before trial `index` can be drawn: those of the rounds before."""
        return self._starts[self.round_of(index)]

    def ranges(self, round: int, told: Sequence[Told]) -> dict[str, Range]:
        """The ranges of a round: the sweep's, narrowed once for each round before it on the trials until then."""
        ranges = dict(self.sweep.space)
        for start in self._starts[1 : round + 1]:
            ended = [trial for trial in self._known(told) if trial.ended and trial.index < start]
            ranges = narrowed(ranges, self.sweep.space, [(trial.drawn, trial.costs) for trial in ended])
        return ranges
