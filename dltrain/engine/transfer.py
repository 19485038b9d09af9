"""`initialize_from`: start from another training's weights, and say exactly what was loaded.

Rows that belong to classes, of the last layer and of auxiliary heads, go by the names of the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dltrain.engine.weights import read_weights
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.layers.impl.modules import CountsSteps, step_counters

SHOWN = 20
"""Names of weights in one line."""


def initialize(
    experiment: Experiment, model: nn.Module, classes: Sequence[str], made: Callable[[int], nn.Module]
) -> list[str]:
    """Copy the weights whose name and shape fit from `experiment.initialize_from` into `model`.

    made: the experiment's network for so many classes; called on the meta device.
    Returns lines that say what was and was not loaded. Raises ConfigError when nothing fits.
    """
    start = experiment.initialize_from
    if start is None:
        return []
    try:
        found = read_weights(start if isinstance(start, str) else start.place)
        if not isinstance(start, str) and start.part is not None:
            found = found.part(start.part)
    except RunError as error:
        raise experiment.error("initialize_from", str(error)) from None
    file, source = found.file, found.tensors
    own = model.state_dict()  # not a plain dict: it carries the versions of the modules
    heads = Heads(found.classes if found.classes is not None else classes, classes)
    if heads.differ:
        heads.match(source, own, class_dimensions(own, len(classes), made))
    apart = heads.of_classes | _anew(model)
    known = {name: tensor for name, tensor in source.items() if name in own and name not in apart}
    fits = {name: tensor for name, tensor in known.items() if own[name].shape == tensor.shape}
    shapes = [name for name in known if name not in fits]
    missing = [name for name in own if name not in source]
    unused = [name for name in source if name not in own]
    if not fits and not heads.matched:
        message = f"no weight of {file} fits model `{experiment.model.name}`"
        raise experiment.error("initialize_from", message, "it was trained with another model")
    own.update({**fits, **heads.matched})
    model.load_state_dict(own)
    lines = [f"initialized from {file}: {len(fits)} of {len(own)} tensors loaded"]
    lines += heads.lines()
    for what, names in (
        ("of another shape, not loaded", shapes), ("not in the checkpoint, left as they were", missing),
        ("in the checkpoint, not in the model", unused),
    ):  # fmt: skip
        if names:
            lines.append(f"  {what}: {_listed(names)}")
    return lines


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


def _listed(names: Sequence[str] | Mapping[str, Tensor]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join([*names][:SHOWN]) + more
