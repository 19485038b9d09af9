"""`initialize_from`: start from another training's weights, and say exactly what was loaded.

Rows that belong to classes, of the last layer and of auxiliary heads, go by the names of the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.engine.weights import read_weights
from dltrain.errors import Note, RunError
from dltrain.experiment.experiment import Experiment
from dltrain.layers.impl.modules import CountsSteps, step_counters

SHOWN = 20
"""Names of weights in one line."""
LEAST = 0.5
"""Share of a network's tensors below which what is loaded may be a mistake."""


@dataclass(frozen=True)
class Transfer:
    """What a network gets from another training's weights, tensor by tensor."""

    file: Path
    part: str | None
    loaded: list[str]
    """Taken as they are."""
    heads: Heads
    """Those whose rows are classes: resized where the classes differ."""
    other_shape: list[str]
    missing: list[str]
    """Of the network, and not in the file."""
    unused: list[str]
    """In the file, and not of the network."""
    total: int
    """Tensors of the network."""

    def notes(self) -> list[Note]:
        """What there is to say of it. A warning where less than half of the network's tensors are loaded."""
        taken = len(self.loaded) + len(self.heads.matched)
        few = taken < LEAST * self.total
        lines = [f"initialized from {self.file}: {len(self.loaded)} of {self.total} tensors loaded"]
        lines += self.heads.lines()
        for what, names in (
            ("of another shape, not loaded", self.other_shape),
            ("not in the checkpoint, left as they were", self.missing),
            ("in the checkpoint, not in the model", self.unused),
        ):  # fmt: skip
            if names:
                lines.append(f"  {what}: {_listed(names)}")
        return [
            Note("warning" if few and not index else "info", "initialized", text) for index, text in enumerate(lines)
        ]

    def whole(self) -> list[str]:
        """A line for each list with all its names, for the log."""
        lists = {what: names for what, names in self.to_dict().items() if isinstance(names, list) and names}
        return [f"initialized, {what.replace('_', ' ')}: {', '.join(names)}" for what, names in lists.items()]

    def to_dict(self) -> dict[str, Any]:
        """All names, for environment.json and the plan."""
        return {
            "file": str(self.file), "part": self.part, "loaded": self.loaded, "resized": [*self.heads.matched],
            "of_another_shape": self.other_shape, "of_other_classes": self.heads.left, "not_in_the_file": self.missing,
            "not_in_the_model": self.unused,
        }  # fmt: skip


def initialize(
    experiment: Experiment, model: nn.Module, classes: Sequence[str], made: Callable[[int], nn.Module]
) -> Transfer | None:
    """Copy the weights whose name and shape fit from `experiment.initialize_from` into `model`; where it is on the meta
    device, only find out which. None where the experiment names no weights.

    made: the experiment's network for so many classes; called on the meta device. Raises ConfigError when nothing fits.
    """
    start = experiment.initialize_from
    if start is None:
        return None
    part = None if isinstance(start, str) else start.part
    try:
        found = read_weights(start if isinstance(start, str) else start.place)
        found = found if part is None else found.part(part)
    except RunError as error:
        raise experiment.error("initialize_from", str(error)) from None
    source = found.tensors
    own = model.state_dict()  # not a plain dict: it carries the versions of the modules
    heads = Heads(found.classes if found.classes is not None else classes, classes)
    if heads.differ:
        heads.match(source, own, class_dimensions(own, len(classes), made))
    apart = heads.of_classes | _anew(model)
    known = {name: tensor for name, tensor in source.items() if name in own and name not in apart}
    fits = {name: tensor for name, tensor in known.items() if own[name].shape == tensor.shape}
    transfer = Transfer(
        found.file, part, loaded=[*fits], heads=heads, other_shape=[name for name in known if name not in fits],
        missing=[name for name in own if name not in source], unused=[name for name in source if name not in own],
        total=len(own),
    )  # fmt: skip
    if not fits and not heads.matched:
        message = f"no weight of {found.file} fits model `{experiment.model.name}`"
        trained = f"it was trained with model `{found.model}`" if found.model else "it was trained with another model"
        wants = f"the model has {_shapes(own)}"
        raise experiment.error("initialize_from", message, f"{trained}; it has {_shapes(source)}", wants)
    if not any(tensor.is_meta for tensor in own.values()):
        own.update({**fits, **heads.matched})
        model.load_state_dict(own)
    return transfer


@dataclass
class Heads:
    """The tensors whose rows are classes, where those of the checkpoint, `before`, are others than `now`, or in another
    order. `matched`: those tensors with the rows of common classes from the checkpoint."""

    before: Sequence[str]
    now: Sequence[str]
    matched: dict[str, Tensor] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    """Those that are not in the checkpoint with a row for each of its classes."""

    @property
    def differ(self) -> bool:
        """Whether rows must be matched at all."""
        return list(self.before) != list(self.now)

    @property
    def common(self) -> list[str]:
        """The classes that both have."""
        return [name for name in self.now if name in self.before]

    @property
    def of_classes(self) -> set[str]:
        """The names of these tensors."""
        return {*self.matched, *self.left}

    def match(self, source: Mapping[str, Tensor], own: Mapping[str, Tensor], dimensions: Mapping[str, int]) -> None:
        """Fill `matched` and `left`. dimensions: which one of each tensor are the classes."""
        rows = torch.tensor([self.now.index(name) for name in self.common], dtype=torch.int64)
        theirs = torch.tensor([self.before.index(name) for name in self.common], dtype=torch.int64)
        for name, dimension in dimensions.items():
            expected = list(own[name].shape)
            expected[dimension] = len(self.before)
            if name not in source:
                continue  # which is said of all that the checkpoint lacks
            if list(source[name].shape) != expected or not self.common:
                self.left.append(name)
                continue
            copied, tensor = own[name].clone(), source[name].to(own[name])
            self.matched[name] = copied.index_copy_(
                dimension, rows.to(copied.device), tensor.index_select(dimension, theirs.to(copied.device))
            )

    def lines(self) -> list[str]:
        """What happened to them, where classes differ."""
        if not self.differ:
            return []
        new, gone = (
            [c for c in one if c not in other] for one, other in ((self.now, self.before), (self.before, self.now))
        )
        lines = []
        if self.matched:
            taken = f"{len(self.common)} of {len(self.now)} classes"
            lines.append(
                f"  classes differ, or their order: the rows of {taken} matched by name: {_listed(self.matched)}"
            )
        if new:
            lines.append(f"  {len(new)} classes that are new, their rows left as they were: {_listed(new)}")
        if gone:
            lines.append(f"  {len(gone)} classes of the checkpoint that are not in this data: {_listed(gone)}")
        if self.left:
            lines.append(f"  of other classes, left as they were: {_listed(self.left)}")
        return lines


def class_dimensions(own: Mapping[str, Tensor], classes: int, made: Callable[[int], nn.Module]) -> dict[str, int]:
    """The tensors of a network that have a row for each class, by name, and in which dimension: the one that grows with
    a class more."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                larger = made(classes + 1).state_dict()
        except Exception:  # a network that looks at its numbers
            larger = made(classes + 1).state_dict()
    found = {}
    for name, tensor in own.items():
        sizes = [*zip(tensor.shape, larger[name].shape)] if name in larger else []
        grown = [dimension for dimension, (size, grows) in enumerate(sizes) if size != grows]
        if len(grown) == 1 and sizes[grown[0]] == (classes, classes + 1):
            found[name] = grown[0]
    return found


def _anew(model: nn.Module) -> set[str]:
    """The tensors that count the steps of one training alone."""
    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in step_counters(model)}
    return {name for name, layer in layers.items() if isinstance(layer, CountsSteps) and layer.anew}


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    """The first names and shapes: `conv1.weight (64x3x7x7), ... of 122 tensors`."""
    first = [f"{name} ({'x'.join(map(str, tensor.shape)) or 'a number'})" for name, tensor in tensors.items()]
    return ", ".join(first[:3]) + (f", ... of {len(first)} tensors" if len(first) > 3 else "")


def _listed(names: Sequence[str] | Mapping[str, Tensor]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join([*names][:SHOWN]) + more
