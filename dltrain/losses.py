"""What training minimises: sections that build a module from logits and targets to one loss per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.config import Choice, ConfigError, Diagnostic, Fraction, NonNegative, Positive

if TYPE_CHECKING:
    from torch import nn


class Loss(Choice):
    """What training minimises, per example.

    `soft_targets` says whether it takes targets (B, K) that mix classes, as mixup makes. `fact` is the loss
    with default options of the logits (1, 0, -1) for class 0, to 1e-6; the contract test requires it.
    """

    kind: ClassVar[str] = "losses"
    soft_targets: ClassVar[bool] = False
    fact: ClassVar[float | None] = None

    def build(self, classes: int) -> nn.Module:
        """A module of (logits (B, K), targets (B,) int64 or (B, K) float) -> (B,), at least float32.

        Raises ConfigError when an option does not fit the number of classes.
        """
        raise NotImplementedError

    def evaluation(self) -> Loss:
        """The loss to report on validation and test data; by default the same."""
        return self


class CrossEntropy(Loss):
    """Minus the logarithm of the probability given to the true class.

    Validation and test report it without label smoothing: the negative log-likelihood, in nats.
    """

    source = "https://arxiv.org/abs/1512.00567"
    soft_targets = True
    fact = 0.407606
    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread evenly over all classes; 0.1 is usual."""

    def build(self, classes: int) -> nn.Module:
        from dltrain.loss_modules import CrossEntropyLoss

        return CrossEntropyLoss(self.label_smoothing)

    def evaluation(self) -> Loss:
        return CrossEntropy()


class Focal(Loss):
    """Cross-entropy that pays less attention to examples that are already right: -(1 - p)^gamma log p.

    Over the softmax of all classes. Validation and test report the plain cross-entropy, comparable between
    experiments.
    """

    source = "https://arxiv.org/abs/1708.02002"
    soft_targets = True
    fact = 0.045678
    name: Literal["focal"] = "focal"
    gamma: NonNegative = 2.0
    """How fast attention falls as the probability of the true class rises; 0 is cross-entropy."""
    alpha: list[Positive] | None = None
    """A weight per class, in the order of the classes; null: 1 for all."""

    def build(self, classes: int) -> nn.Module:
        from dltrain.loss_modules import FocalLoss

        if self.alpha is not None and len(self.alpha) != classes:
            message = f"`loss.alpha` has {len(self.alpha)} weights for {classes} classes"
            raise ConfigError([Diagnostic(message, notes=("give one weight per class, in the order of the classes",))])
        return FocalLoss(self.gamma, self.alpha)

    def evaluation(self) -> Loss:
        return CrossEntropy()


class BinaryCrossEntropy(Loss):
    """One yes-or-no question per class, the mean over classes: max(o, 0) - o q + log(1 + e^-|o|).

    Of logits, with the target 1 for the true class and 0 for the others. Predictions are read from a softmax all the
    same: their order is right, their size is not that of the sigmoids.
    """

    source = "https://arxiv.org/abs/2110.00476"
    soft_targets = True
    fact = 0.439890
    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread evenly over all classes; 0.1 is usual."""

    def build(self, classes: int) -> nn.Module:
        from dltrain.loss_modules import BinaryCrossEntropyLoss

        return BinaryCrossEntropyLoss(self.label_smoothing)

    def evaluation(self) -> Loss:
        return BinaryCrossEntropy()


class MeanSquaredError(Loss):
    """The mean over classes of (o - q)^2, of the logits and the target 1 for the true class, 0 for the others.

    For mixed targets the mean over the classes in the mixture, which has the same gradients. Predictions are read
    from a softmax all the same: their order is right, their size is not.
    """

    source = "https://arxiv.org/abs/2006.07322"
    soft_targets = True
    fact = 0.333333
    name: Literal["mse"] = "mse"

    def build(self, classes: int) -> nn.Module:
        from dltrain.loss_modules import MeanSquaredErrorLoss

        return MeanSquaredErrorLoss()
