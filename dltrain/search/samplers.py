"""The kind `Sampler`: how the settings of a sweep are drawn. Each states what its k-th setting is a function of."""

from __future__ import annotations

import importlib.util
import math
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dltrain.config import Choice, PositiveInt
from dltrain.search.conditions import Space
from dltrain.search.space import Range

if TYPE_CHECKING:
    from dltrain.search.impl.sampling import Sampling

MOST = 100_000
"""Settings that a grid has at most."""
FEW = 20
"""Trials below which `auto` takes a sampler that learns nothing from them."""


class Sampler(Choice):
    """How settings are drawn. A setting that was tried is drawn again."""

    kind: ClassVar[str] = "samplers"
    not_offered: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("bayes", "bayesian", "bo"), "Bayesian optimization is `gp` with a Gaussian process, or `tpe`"),
        **dict.fromkeys(("sobol", "qmc", "halton"), "write `quasi_random`, which takes a Sobol sequence"),
        **dict.fromkeys(("cma", "cmaes", "cma-es"), "write `cma_es`"),
        **dict.fromkeys(("optuna", "motpe"), "write `tpe`"), "brute_force": "write `grid`",
    }  # fmt: skip
    learns: ClassVar[bool] = False
    """Whether a setting depends on how earlier trials went, besides (seed, trial)."""
    several_objectives: ClassVar[bool] = True
    """Whether it can search for several metrics at once."""
    library: ClassVar[str] = ""
    """What it needs beyond dltrain's own requirements: the module to import."""
    install: ClassVar[str] = ""
    """What pip is to install for it."""

    @abstractmethod
    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        """What draws trials `first`, `first` + 1, ... from a space; `tried`: the identities of settings that earlier
        trials have had in it."""

    def decided(self, space: Space, trials: int) -> tuple[Sampler, str]:
        """The sampler that draws so many trials, and why it is that one where it was left open."""
        return self, ""

    def size(self, space: Space) -> int | None:
        """How many settings of the space it can draw, where these are fewer than the space has; else None."""
        return None

    def refusal(self, space: Space) -> str:
        """Why it cannot draw from the space, or nothing."""
        return ""

    def is_installed(self) -> bool:
        """Whether its library is there."""
        return not self.library or importlib.util.find_spec(self.library) is not None


class Random(Sampler):
    """Each key independently at random. Trial k is a function of (seed, k)."""

    source = "https://jmlr.org/papers/v13/bergstra12a.html"
    name: Literal["random"] = "random"

    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        from dltrain.search.impl.sampling import RandomSequence

        return RandomSequence(space, seed, first, tried)


class QuasiRandom(Sampler):
    """Points of a scrambled Sobol sequence: at random, but more evenly. Trial k is a function of (seed, k)."""

    source = "https://doi.org/10.1016/S0885-064X(98)90487-6"
    name: Literal["quasi_random"] = "quasi_random"

    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        from dltrain.search.impl.sampling import SobolSequence

        return SobolSequence(space, seed, first, tried)


class Grid(Sampler):
    """Every combination of values, in an order drawn at random. Trial k is a function of (seed, k).

    A key has its choices or its steps; any other range has `points` values, evenly spaced from its low to its high, in
    the logarithm where it is `log`.
    """

    source = "https://jmlr.org/papers/v13/bergstra12a.html"
    name: Literal["grid"] = "grid"
    points: int = Field(default=5, ge=2)
    """Values of a range that has neither choices nor steps; integers have fewer where the range holds fewer."""

    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        from dltrain.search.impl.sampling import GridSequence

        return GridSequence(space, seed, first, tried, self.values(space))

    def values(self, space: Space) -> dict[str, list[Any]]:
        """The values of each key, choices by their places."""
        return {key: list(space.places.get(key) or self._points(range_)) for key, range_ in space.ranges.items()}

    def _points(self, range_: Range) -> list[Any]:
        size = range_.size()
        if size is not None and (range_.step is not None or size <= self.points):
            return list(range_.values())
        low, high = range_.bounds()
        places = [index / (self.points - 1) for index in range(self.points)]
        values = [low * (high / low) ** place if range_.log else low + place * (high - low) for place in places]
        return list(dict.fromkeys(range_.value(round(value) if range_.is_integer else value) for value in values))

    def size(self, space: Space) -> int | None:
        return None if self.refusal(space) else sum(1 for _ in space.every(self.values(space)))

    def refusal(self, space: Space) -> str:
        counts = [
            len(space.places[key]) if key in space.places else min(range_.size() or self.points, self.points)
            if range_.step is None else range_.size() or 0
            for key, range_ in space.ranges.items()
        ]  # fmt: skip
        if (size := math.prod(counts)) <= MOST:
            return ""
        return f"the grid has {size:,} settings ({' x '.join(map(str, counts))}), and {MOST:,} is the most"


class Learning(Sampler):
    """A sampler that learns from the trials that have ended."""

    learns = True
    startup: PositiveInt = 10
    """Trials that must have ended well before it learns from them; until then settings are those of `random`."""


class TPE(Learning):
    """Tree-structured Parzen estimators over all keys together: draws where good trials were dense beside the others.

    Trial k is a function of (seed, k) and of which trials have ended, and how, when it is drawn; those that still run
    keep it from their place. Settings that failed count as bad ones.
    """

    source = "https://arxiv.org/abs/2304.11127"
    name: Literal["tpe"] = "tpe"
    candidates: PositiveInt = 24
    """Settings that are drawn from the good ones' density; the most promising is taken."""

    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        from dltrain.search.impl.bayesian import TPESampling

        return TPESampling(space, seed, self.startup, self.candidates)


class GaussianProcess(Learning):
    """Bayesian optimization: a Gaussian process (Matern 5/2) of the metric, and where its improvement is greatest.

    Trial k is a function of (seed, k) and of which trials have ended, and how, when it is drawn; those that still run
    keep it from their place. Settings that failed count as the worst. Drawing takes time: see docs/search.md.
    """

    source = "https://arxiv.org/abs/2310.20708"
    name: Literal["gp"] = "gp"

    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        from dltrain.search.impl.bayesian import GPSampling

        return GPSampling(space, seed, self.startup)


class CMAES(Sampler):
    """Evolution strategy with a covariance matrix that adapts, for a hundred trials or more of a few numbers.

    Choices get a distribution that adapts with it (CatCMA). Trial k is a function of (seed, k) and of which trials have
    ended, and how, when it is drawn: each whole generation of them, by their numbers, moves the distribution.
    """

    source = "https://arxiv.org/abs/1604.00772"
    learns = True
    several_objectives = False
    library, install = "cmaes", "dltrain[search]"
    name: Literal["cma_es"] = "cma_es"
    population: int | None = Field(default=None, ge=4)
    """Trials of a generation; null: 4 + 3 ln(number of keys)."""
    sigma: float = Field(default=0.3, gt=0, le=1)
    """First standard deviation, in widths of the ranges; the first mean is their middle."""

    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        from dltrain.search.impl.cma_es import CMASampling

        return CMASampling(space, seed, first, self.population, self.sigma)

    def refusal(self, space: Space) -> str:
        if len(space.places) < len(space.ranges):
            return ""
        return "`cma_es` needs a key with `low` and `high`: it searches among numbers"


class Auto(Sampler):
    """The sampler that suits the space and the number of trials; the sweep says which one it is, and why."""

    name: Literal["auto"] = "auto"

    def decided(self, space: Space, trials: int) -> tuple[Sampler, str]:
        size = space.size()
        if size is not None and size <= trials:
            return Random(), f"every one of the {size} settings is tried"
        if trials < FEW:
            return QuasiRandom(), f"{trials} trials are too few to learn from, and are spread evenly"
        return TPE(), f"of {trials} trials, those after the first {TPE().startup} learn from the earlier ones"

    def build(self, space: Space, seed: int, first: int, tried: Collection[str]) -> Sampling:
        raise TypeError("`auto` is decided first")
