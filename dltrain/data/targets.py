"""What is to be learned: the target of every example, and what splits, fingerprints and losses must know of it.

values of a source (N, ...) -> strata (for splits), digests (for the fingerprint), tensors (for the loss)
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dltrain.config import ConfigError, Diagnostic

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from typing_extensions import Self


class TargetSpec(ABC):
    """What the targets of a data set are. A source holds them as an array `values` with one row an example."""

    kind: ClassVar[str]
    """What `names` are the names of."""
    words: ClassVar[str]
    """What an example has, for messages."""
    names: Sequence[str]
    """Of the classes, the numbers or the labels."""

    @property
    def counted(self) -> str:
        """How many there are: `10 classes`, `1 number`."""
        count = len(self.names)
        return f"{count:,} {self.kind if count != 1 else self.kind.removesuffix('s')}"

    def problem(self) -> str | None:
        """Why nothing can be learned from such targets, if it is so."""
        return None

    def fitted(self, values: np.ndarray) -> Self:
        """With what is taken from the values of the training split. Raises ConfigError when nothing can be learned of
        one of them."""
        return self

    def adopted(self, values: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Values of this spec, for who knows the same things by these names, perhaps in another order: by default,
        columns. Raises KeyError for a name that only one of both has."""
        if set(names) != set(self.names):
            raise KeyError(*sorted(set(names) ^ set(self.names))[:1])
        ordered: np.ndarray = values[:, [list(self.names).index(name) for name in names]]
        return ordered

    def strata(self, values: np.ndarray) -> np.ndarray | None:
        """(N,) int64, the place in `names` of what every split has in proportion; None: splits are by hash alone."""
        return None

    @abstractmethod
    def groups(self, values: np.ndarray) -> np.ndarray:
        """(N,) int64: equal inputs contradict each other where these differ."""

    @abstractmethod
    def text(self, value: Any) -> str:
        """A row of values, as `tolist` gives it, in words."""

    @abstractmethod
    def digest(self, value: Any) -> bytes:
        """What the fingerprint keeps of a row of values, as `tolist` gives it: equal for equal rows alone."""

    @property
    @abstractmethod
    def mark(self) -> str:
        """What the fingerprint keeps of the targets as a whole."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which `target_from` reads."""
        values: Any = vars(self)
        return {"kind": self.kind, **{name: list(value) for name, value in values.items()}}

    @abstractmethod
    def soft(self, targets: Tensor) -> Tensor:
        """Targets of a batch as float32, so that they can be mixed."""


@dataclass(frozen=True)
class Classes(TargetSpec):
    """One of several classes. values: (N,) int64, places in `names`."""

    kind, words = "classes", "a class"
    names: Sequence[str]

    def problem(self) -> str | None:
        few = len(self.names) < 2
        return f"a classifier needs two classes or more, and the data has {list(self.names)}" if few else None

    def adopted(self, values: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """There may be classes that the values do not have."""
        import numpy as np

        places: np.ndarray = np.array([list(names).index(name) for name in self.names], dtype=np.int64)[values]
        return places

    def strata(self, values: np.ndarray) -> np.ndarray:
        return values

    def groups(self, values: np.ndarray) -> np.ndarray:
        return values

    def text(self, value: int) -> str:
        return self.names[value]

    def digest(self, value: int) -> bytes:
        return b"%d" % value

    @property
    def mark(self) -> str:
        return json.dumps(list(self.names))

    def soft(self, targets: Tensor) -> Tensor:
        """(B,) class indices or (B, K) shares of classes -> (B, K)."""
        from torch.nn.functional import one_hot

        return targets if targets.is_floating_point() else one_hot(targets, len(self.names)).float()


@dataclass(frozen=True)
class Real(TargetSpec):
    """Numbers. values: (N, n) float64. mean, std: of each over the training examples, by which they are learned."""

    kind, words = "numbers", "numbers"
    names: Sequence[str]
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def fitted(self, values: np.ndarray) -> Real:
        """With the mean and the population standard deviation of training values."""
        low, high = values.min(0), values.max(0)
        if constant := (low == high).nonzero()[0].tolist():
            column = constant[0]
            message = f"`{self.names[column]}` is {low[column]:g} in every training example: there is nothing to learn"
            raise ConfigError([Diagnostic(message, notes=("leave it out of the targets",))])
        return Real(self.names, values.mean(0).tolist(), values.std(0).tolist())

    def groups(self, values: np.ndarray) -> np.ndarray:
        """Equal inputs may have been measured twice."""
        import numpy as np

        return np.zeros(len(values), np.int64)

    def text(self, value: Sequence[float]) -> str:
        return ", ".join(f"{name} {number:g}" for name, number in zip(self.names, value, strict=True))

    def digest(self, value: Sequence[float]) -> bytes:
        return " ".join(map(repr, value)).encode()

    @property
    def mark(self) -> str:
        return json.dumps({"real": list(self.names)})

    def soft(self, targets: Tensor) -> Tensor:
        return targets


@dataclass(frozen=True)
class Labels(TargetSpec):
    """Any number of labels. values: (N, K) bool, whether an example has each."""

    kind, words = "labels", "any number of labels"
    names: Sequence[str]

    def fitted(self, values: np.ndarray) -> Labels:
        """Every label must have an example."""
        if absent := (~values.any(0)).nonzero()[0].tolist():
            more = f" (and {len(absent) - 1} other labels)" if len(absent) > 1 else ""
            message = f"no training example has label `{self.names[absent[0]]}`{more}: it cannot be learned"
            raise ConfigError([Diagnostic(message, notes=("leave it out, or add examples of it",))])
        return self

    def groups(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def text(self, value: Sequence[bool]) -> str:
        return ", ".join(name for name, has in zip(self.names, value, strict=True) if has) or "no label"

    def digest(self, value: Sequence[bool]) -> bytes:
        return bytes(48 + has for has in value)

    @property
    def mark(self) -> str:
        return json.dumps({"labels": list(self.names)})

    def soft(self, targets: Tensor) -> Tensor:
        return targets


@dataclass(frozen=True)
class NoTarget(TargetSpec):
    """Nothing but the inputs. values: (N, 0)."""

    kind, words = "nothing", "no target"
    names: Sequence[str] = ()

    def groups(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.zeros(len(values), np.int64)

    def text(self, value: Sequence[Any]) -> str:
        return "nothing"

    def digest(self, value: Sequence[Any]) -> bytes:
        return b""

    @property
    def mark(self) -> str:
        return json.dumps({})

    def soft(self, targets: Tensor) -> Tensor:
        return targets


KINDS: dict[str, type[Classes | Real | Labels | NoTarget]] = {
    spec.kind: spec for spec in (Classes, Real, Labels, NoTarget)
}


def target_from(values: Mapping[str, Any]) -> TargetSpec:
    """What `to_dict` returned, as a spec again."""
    return KINDS[values["kind"]](**{name: value for name, value in values.items() if name != "kind"})


def as_tensor(values: np.ndarray) -> Tensor:
    """Values of targets for a loss: integers, which are class indices, as int64, everything else as float32."""
    import torch

    tensor = torch.from_numpy(values.copy())
    return tensor.float() if tensor.is_floating_point() or tensor.dtype == torch.bool else tensor.long()
