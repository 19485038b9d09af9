"""A task as the training and the commands use it: losses, sums, and what outputs mean. Imports torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dltrain.tasks.impl.meters import Meter, Report
from dltrain.tasks.impl.objectives import Objective, answer_of
from dltrain.tasks.losses import Loss
from dltrain.tasks.outcomes import Outcomes
from dltrain.tasks.outputs import Output


@dataclass(frozen=True)
class Readings:
    """What outputs say of each name of the targets, for whoever asks which part of an input says it."""

    scores: Tensor
    """(B, K): differentiable; the larger, the more the output speaks for the name."""
    values: Tensor
    """(B, K): what people read: a probability, or a number in its units."""
    answers: Tensor
    """(B,) int64: the name that is answered."""
    are_probabilities: bool = True


class BuiltTask(ABC):
    """A task for one data set, on one device. outputs (B, ...) are what the network puts out, targets (B, ...) what it
    should say; in training, `views` rows in a row are views of one example."""

    learns_inputs: ClassVar[bool] = False
    """Whether the targets are the inputs, whatever the data has to say of them."""
    calibrates: ClassVar[bool] = False
    """Whether outputs are logits of probabilities, which a temperature calibrates."""
    classes: Sequence[str] = ()
    """The names of the classes of which each example has one; of other tasks none."""
    views: int = 1
    device: torch.device
    minimises: Loss | None = None
    """The section of the loss that training minimises, where `losses` depend on it and on the targets alone."""

    def scale(self, targets: Tensor, add: Callable[[Sequence[Tensor]], None]) -> Tensor | None:
        """What makes a mean over the whole batch, in all its parts on all devices, the weighted mean: 1 / the mean of
        the examples' weights. None where they have none. add: replaces tensors by their sums over processes."""
        return None

    def losses(self, outputs: Any, targets: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Of what the network puts out in training: the outputs (B, ...) that are its answer, their losses (B,), which
        are reported, and the sums (B,) that training minimises. scale: of the whole batch that these are of.

        An objective of the network's own is part of both.
        """
        if not isinstance(outputs, Objective):
            return self.own_losses(outputs, targets, scale)
        _, losses, total = self.own_losses(outputs.compared, targets, scale)
        if outputs.summed:
            losses, total = (values * self.summands(targets) for values in (losses, total))
        return outputs.outputs, outputs.reported_of(losses), outputs.minimised_of(total)

    @abstractmethod
    def own_losses(self, outputs: Any, targets: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the task alone, which knows of no objective of the network's."""

    @abstractmethod
    def reported_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The losses (B,) that are reported of a split that is measured."""

    def summands(self, targets: Tensor) -> int:
        """Of how many values of an example its loss is the mean; 1 where it is none."""
        return 1

    @abstractmethod
    def meter(self) -> Meter:
        """Sums over training batches."""

    @abstractmethod
    def report(self) -> Report:
        """Sums over a split that is measured."""

    @abstractmethod
    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """One answer (B, ...), on the device of the first, from those to several views or of several networks. By
        default all weigh the same."""

    def settle(self, report: Report) -> None:  # noqa: B027
        """Take from the report on the validation split what answers depend on besides the weights, such as thresholds.
        By default nothing."""

    def adopt(self, tasks: Sequence[BuiltTask]) -> None:  # noqa: B027
        """Answer as one network does, whose task this is, or as several do together. By default answers depend on
        outputs alone."""

    def state_dict(self) -> dict[str, Any]:
        """What `settle` took, as tensors; empty where that is nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Answer as the task did whose `state_dict` this is."""

    def temper(self, temperature: float) -> None:  # noqa: B027
        """Answer to outputs that are divided by a temperature as to the same ones before. By default answers do not
        depend on the scale of outputs."""

    def likelihood_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood (B,) of targets by the probabilities of outputs, in nats, a mean over the answers
        of an example. Only of a task that `calibrates`."""
        raise NotImplementedError(f"{type(self).__name__} gives no probabilities")

    def remarks(self) -> list[str]:
        """What there is to say of how outputs become answers, in sentences."""
        return []

    def confidence(self, outputs: Tensor) -> Tensor:
        """How sure each answer is (B,): larger is surer. Only of a task that is `confident`."""
        raise NotImplementedError(f"{type(self).__name__} does not know how sure it is")

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """The names of what `answers` gives, nested values included, as the columns of a table. `path` is not free."""

    @abstractmethod
    def answers(self, outputs: Tensor, inputs: Tensor) -> list[dict[str, Any]]:
        """What each output says, as plain values ready for JSON; values may be mappings of names to numbers. inputs:
        (B, ...), those that the network answered to."""

    def outcomes(self, outputs: Tensor, targets: Tensor) -> Outcomes:
        """What the table of a measured split tells of these examples besides their losses; by default nothing."""
        return Outcomes()

    def said(self, outputs: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        """What `answers` says, as tensors (B, ...) by name, for programs that know no task: exported files give these.
        By default nothing but the outputs is exported."""
        return {}

    def readings(self, outputs: Tensor) -> Readings | None:
        """What outputs (B, ...) say of each name of the targets; None where they speak for no name."""
        return None

    def shown(self, outputs: Tensor) -> Tensor:
        """Outputs (B, ...) as values like the inputs', of a task that learns these."""
        raise NotImplementedError(f"what {type(self).__name__} puts out looks like no input")

    def measure(self, report: Report, outputs: Any, targets: Tensor, valid: int) -> None:
        """Add a batch to a report, of which the first `valid` rows count. outputs: what the network puts out in
        evaluation, or what is combined of several."""
        report.update(answer_of(outputs), targets, self.measured_losses(outputs, targets), valid)

    def measured_losses(self, outputs: Any, targets: Tensor) -> Tensor:
        """The losses (B,) that a report is given, of the same outputs as `measure`."""
        if not isinstance(outputs, Objective):
            return self.reported_losses(outputs, targets)
        losses = self.reported_losses(outputs.compared, targets)
        return outputs.reported_of(losses * self.summands(targets) if outputs.summed else losses)


class SupervisedTask(BuiltTask):
    """A task that compares outputs with targets by a loss. A model's output in training is the answer, or a tuple of
    the answer and what each auxiliary head says.

    `loss` is what training minimises, `reported` what is reported on validation and test data: both map (outputs
    (B, ...), targets as `compared` gives them) to (B,). `auxiliary` is the weight of the loss of each auxiliary head.
    """

    def __init__(
        self, loss: Loss, reported: Loss, output: Output, device: torch.device, auxiliary: float = 0.0
    ) -> None:
        self.device, self.auxiliary, self.views = device, auxiliary, loss.views
        self.minimises = loss
        self.loss, self.reported = loss.build(output).to(device), reported.build(output).to(device)

    def compared(self, targets: Tensor) -> Tensor:
        """Targets of a batch as the losses take them."""
        return targets

    def own_losses(
        self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        answer, *heads = (outputs,) if isinstance(outputs, Tensor) else outputs
        compared = self.compared(targets)
        losses = total = self._loss(answer, compared, scale)
        for head in heads:
            total = total + self.auxiliary * self._loss(head, compared, scale)
        return answer, losses, total

    def _loss(self, outputs: Tensor, compared: Tensor, scale: Tensor | None) -> Tensor:
        losses: Tensor = self.loss(outputs, compared)
        return losses if scale is None else losses * scale

    def reported_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = self.reported(outputs, self.compared(targets))
        return losses


def free_name(name: str, taken: set[str]) -> str:
    """A column's name that none of `taken` has, where it is put."""
    while name in taken:
        name += " "
    taken.add(name)
    return name
