"""What training minimises: sections that build a module from outputs and targets to one loss per example.

Those of numbers alone stand in `number_losses`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from dltrain.config import Choice, ConfigError, Diagnostic, Fraction, NonNegative, Positive, reject
from dltrain.tasks.outputs import LikeInput, Logits, Numbers, Output, YesNoLogits

if TYPE_CHECKING:
    from torch import nn


class Loss(Choice):
    """What training minimises, per example.

    `outputs` are the kinds of what the network may put out for it. `soft_targets` says whether it takes targets (B, K)
    that are mixed, as mixup makes them. `fact` is the loss with default options of the outputs (1, 0, -1) for class 0,
    or for the targets (1, 0, 0) where it takes no classes, to 1e-6; the contract test requires it.
    """

    kind: ClassVar[str] = "losses"
    not_offered: ClassVar[Mapping[str, str]] = {
        "nll": "networks put out logits, of which `cross_entropy` is the negative log-likelihood",
        "nll_loss": "networks put out logits, of which `cross_entropy` is the negative log-likelihood",
        "mae": "the mean absolute error is loss `l1`", "l1_loss": "write `l1`", "l2": "write `mse`",
        "bce": "write `binary_cross_entropy`, which takes logits", "kl": "`variational_autoencoder` brings its own",
        "kl_normal": "`variational_autoencoder` brings it: an objective of its own",
    }  # fmt: skip
    outputs: ClassVar[tuple[type[Output], ...]] = (Logits,)
    of_logits: ClassVar[bool] = False
    """Whether it takes logits of values in 0..1, where a network puts out what looks like its input."""
    soft_targets: ClassVar[bool] = False
    fact: ClassVar[float | None] = None
    views: ClassVar[int] = 1
    """Rows in a batch that are views of one example, side by side."""

    @property
    def taken(self) -> tuple[type[Output], ...]:
        """Those of `outputs` that it takes with its options."""
        return self.outputs

    def fitted(self, counts: list[int], examples: int) -> Loss:
        """This loss with what it takes from the training split: so many examples in all, and of each class or label."""
        return self

    @abstractmethod
    def build(self, output: Output) -> nn.Module:
        """A module of (outputs (B, ...), targets (B, ...)) -> (B,), at least float32.

        Of logits (B, K), targets are (B,) int64 or (B, K) float; of other outputs (B, n), they are (B, n) float. Raises
        ConfigError when an option does not fit the output.
        """

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean over what the network puts out for an example, and no sum."""
        return True

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
    class_weights: list[Positive] | Literal["balanced"] | None = None
    """A weight per class, in the order of the classes; balanced: n / (K n_k), so that every class of the training
    split weighs the same; null: 1 for all. As in torch, a batch's loss is the weighted mean, the sum divided by that
    of the weights, of the whole batch: only their ratios count. Validation and test are not weighted."""

    def fitted(self, counts: list[int], examples: int) -> Loss:
        if self.class_weights != "balanced":
            return self
        weights = [examples / (len(counts) * max(count, 1)) for count in counts]
        return self.model_copy(update={"class_weights": weights})

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.losses import CrossEntropyLoss

        weights = None if isinstance(self.class_weights, str) else self.class_weights
        _one_per_class("loss.class_weights", weights, output)
        return CrossEntropyLoss(self.label_smoothing, weights)

    def evaluation(self) -> Loss:
        return CrossEntropy()


class JensenShannon(Loss):
    """Cross-entropy of an example, and the Jensen-Shannon divergence between it and two mixtures of it.

    -log p_y + weight (KL(p|m) + KL(p1|m) + KL(p2|m)) / 3, m = (p + p1 + p2) / 3. For `aug_mix` with `views: 3`.
    Validation and test report the plain cross-entropy; training accuracy is that of the examples themselves.
    """

    source = "https://arxiv.org/abs/1912.02781"
    soft_targets = True
    fact = 0.407606
    views = 3
    name: Literal["jsd"] = "jsd"
    weight: NonNegative = 12.0
    """Of the divergence."""
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread evenly over all classes; 0.1 is usual."""

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.losses import JensenShannonLoss

        return JensenShannonLoss(self.weight, self.label_smoothing, self.views)

    def evaluation(self) -> Loss:
        return CrossEntropy()


class Focal(Loss):
    """Cross-entropy that pays less attention to examples that are already right: -(1 - p)^gamma log p.

    Of a softmax, or of yes-or-no questions: one per class, or those of the tasks `binary_classification` and
    `multilabel`, for which `form: sigmoid` is written. Validation and test report the loss without gamma and
    alpha, comparable between experiments.
    """

    source = "https://arxiv.org/abs/1708.02002"
    outputs = (Logits, YesNoLogits)
    soft_targets = True
    fact = 0.045678
    name: Literal["focal"] = "focal"
    form: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: p is that of the true class. sigmoid: the mean over classes, as in `binary_cross_entropy`."""
    gamma: NonNegative = 2.0
    """How fast attention falls as the probability of the true class rises; 0 is cross-entropy."""
    alpha: list[Positive] | Fraction | None = None
    """softmax: a weight per class, in the order of the classes. sigmoid: the weight of the true class, the others
    have 1 - alpha; 0.25 in the paper. null: 1 for all. As in the paper, the mean is not divided by the sum of these
    weights: 10 for all makes the step 10 times as long."""

    @property
    def taken(self) -> tuple[type[Output], ...]:
        return self.outputs if self.form == "sigmoid" else (Logits,)

    @model_validator(mode="after")
    def _alpha_of_the_form(self) -> Focal:
        if self.form == "softmax" and self.alpha is not None and not isinstance(self.alpha, list):
            raise reject("alpha", "`alpha` is one number with `form: sigmoid` only; with softmax, a list of weights")
        if self.form == "sigmoid" and isinstance(self.alpha, list):
            raise reject("alpha", "`alpha` is a list with `form: softmax` only; with sigmoid, one number")
        return self

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.losses import FocalLoss, SigmoidFocalLoss

        if self.form == "sigmoid":
            return SigmoidFocalLoss(self.gamma, None if isinstance(self.alpha, list) else self.alpha)
        weights = self.alpha if isinstance(self.alpha, list) else None
        _one_per_class("loss.alpha", weights, output)
        return FocalLoss(self.gamma, weights)

    def evaluation(self) -> Loss:
        return CrossEntropy() if self.form == "softmax" else BinaryCrossEntropy()


class BinaryCrossEntropy(Loss):
    """Yes-or-no questions, the mean over them: max(o, 0) - o q + log(1 + e^-|o|).

    Those of the tasks `binary_classification` and `multilabel`; with `classification` one per class, with the target 1
    for the true class and 0 for the others. There, answers are read from a softmax all the same: their order is right,
    their size is not that of the sigmoids. With task `reconstruction`, the mean over the
    values of an input, which lie in 0..1.
    """

    source = "https://arxiv.org/abs/2110.00476"
    outputs = (Logits, YesNoLogits, LikeInput)
    of_logits = True
    soft_targets = True
    fact = 0.439890
    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread evenly over all classes, or over yes and no; 0.1 is usual."""
    pos_weight: Positive | list[Positive] | Literal["balanced"] | None = None
    """What yes counts against no: one number, a list of one per class or label, in their order, or balanced: for each
    the examples of the training split without it, divided by those with it; null: 1. Validation and test are not
    weighted."""

    def fitted(self, counts: list[int], examples: int) -> Loss:
        if self.pos_weight != "balanced":
            return self
        weights = [max(examples - count, 1) / max(count, 1) for count in counts]
        return self.model_copy(update={"pos_weight": weights})

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl import losses

        weight = None if isinstance(self.pos_weight, str) else self.pos_weight
        if output.like_input and self.pos_weight is not None and not isinstance(weight, float):
            message = "`loss.pos_weight` of an input is one number"
            raise ConfigError([Diagnostic(message, key="pos_weight")])
        if isinstance(weight, list):
            _one_per_class("loss.pos_weight", weight, output)
        if isinstance(output, Logits):
            return losses.BinaryCrossEntropyLoss(self.label_smoothing, weight)
        return losses.ValueCrossEntropyLoss(self.label_smoothing, weight)

    def evaluation(self) -> Loss:
        return BinaryCrossEntropy()


class PerceptronLoss(Loss):
    """The mean over yes-or-no questions of |o| where the answer, yes for o > 0, is wrong, and 0 where it is right.

    Its gradient is the answer minus the target, 0 or 1: with `sgd` without momentum the weights change by the
    perceptron's rule, w += lr (t - y) x, and only at mistakes. It says nothing of how wide the margin is.
    """

    source = "Rosenblatt 1958, The Perceptron: A Probabilistic Model for Information Storage and Organization"
    outputs = (YesNoLogits,)
    fact = 0.0
    name: Literal["perceptron"] = "perceptron"

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.losses import MistakesLoss

        return MistakesLoss()


class MeanSquaredError(Loss):
    """The mean of (o - t)^2 over what the network puts out: numbers, or logits with the target 1 for the true class and
    0 for the others.

    Of classes that are mixed the mean over those in the mixture, which has the same gradients. Predictions of classes
    are read from a softmax all the same: their order is right, their size is not. With task `reconstruction`, the mean
    over the values of an input of (o - x)^2.
    """

    source = "https://arxiv.org/abs/2006.07322"
    outputs = (Logits, Numbers, LikeInput)
    soft_targets = True
    fact = 0.333333
    name: Literal["mse"] = "mse"
    form: Literal["mean", "half_sum"] = "mean"
    """mean: over the classes, the numbers or the values of an input; half_sum: half of their sum, as in textbooks
    (K / 2 times the mean of K)."""

    @property
    def is_mean(self) -> bool:
        return self.form == "mean"

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.losses import MeanSquaredErrorLoss, ValueSquaredErrorLoss

        if not isinstance(output, Logits):
            return ValueSquaredErrorLoss(half_sum=self.form == "half_sum")
        return MeanSquaredErrorLoss(1.0 if self.form == "mean" else output.count / 2)


def _one_per_class(key: str, weights: list[float] | None, output: Output) -> None:
    """Raises ConfigError when there is not one weight for each class."""
    if weights is not None and len(weights) != output.count:
        one, several = ("class", "classes") if isinstance(output, Logits) else ("label", "labels")
        message = f"`{key}` has {len(weights)} weights for {output.count} {several}"
        raise ConfigError([Diagnostic(message, notes=(f"give one weight per {one}, in the order of the {several}",))])
