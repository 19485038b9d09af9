"""Known traps: settings that are legal, run, and cost accuracy, speed or days. Each is a function of the facts.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dltrain.data.loading.resources import free_memory, size
from dltrain.experiment.experiment import Experiment
from dltrain.optim.averages import EMA, SWA
from dltrain.optim.impl.roles import exempt, trainable
from dltrain.planning.network import Measured

LEAST_FOR_STATISTICS = 8
"""Images below which batch norm's mean and variance are mostly noise (Wu & He 2018: ResNet-50 loses 1 % of accuracy
at 8, 2 % at 4)."""
LARGE_BATCH = 1024
"""Examples a step from which SGD at full speed from the first step tends to diverge (Goyal et al. 2017)."""
STRONG_DECAY = 0.01
"""Weight decay above which norms and biases should be spared: the published 1e-4 to 5e-4 of SGD reach all."""
MOST_OF_THE_START = 0.01
"""Share of an average that the first weights may have at its end."""
SATURATING = {"sigmoid", "log_sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softsign"}
RECTIFYING = {"relu", "relu6", "leaky_relu", "prelu", "rrelu", "frelu"}


@dataclass(frozen=True)
class Facts:
    """What a training will be, as far as the traps look at it.

    groups: the optimizer's, as torch has them. need: bytes of memory that it will take besides its data.
    """

    experiment: Experiment
    model: nn.Module
    measured: Measured
    groups: list[dict[str, Any]]
    device: str
    steps_per_epoch: int
    total_steps: int
    learning_rate: Callable[[int], float]
    need: int = 0

    @property
    def micro_batch(self) -> int:
        """Examples of one forward."""
        return self.experiment.training.micro_batch

    @property
    def example(self) -> str:
        """What one is called."""
        return self.experiment.data.inputs.one

    @property
    def activation(self) -> str | None:
        """The name of the network's activation, where its section says."""
        section = self.experiment.model
        found = getattr(section, "activation", None) or getattr(section, "published_activation", None)
        return found.name if found is not None else None

    @property
    def initialization(self) -> str:
        """The name of the weights' start that the experiment sets, or nothing."""
        section = self.experiment.model.initialization
        return section.name if section is not None else ""


def warnings(facts: Facts) -> list[str]:
    """What there is to warn of, a sentence each."""
    found = [text for trap in TRAPS if (text := trap(facts)) is not None]
    schedule = facts.experiment.schedule
    return found + schedule.remarks(facts.total_steps, facts.steps_per_epoch)  # drops that come too late, and the like


def too_large(facts: Facts) -> str | None:
    """What runs out of memory in the first step could have been known."""
    free = free_memory(torch.device(facts.device))
    if facts.need <= free:
        return None
    return (
        f"it needs about {size(facts.need)} of memory besides its data, and {size(free)} are free: "
        f"`training.accumulate` cuts a batch of {facts.experiment.training.batch} into parts"
    )


def odd_batch(facts: Facts) -> str | None:
    """Tensor cores take multiples of 8."""
    if not facts.device.startswith("cuda") or facts.micro_batch % 8 == 0:
        return None
    return f"a GPU is slower with {facts.micro_batch} {facts.example}s at a time than with a multiple of 8"


def noisy_statistics(facts: Facts) -> str | None:
    """Batch norm measures each part of a batch alone."""
    if facts.micro_batch >= LEAST_FOR_STATISTICS or not _has(facts.model, _BatchNorm):
        return None
    parts = facts.experiment.training.accumulate
    why = f" (batch_size {facts.micro_batch * parts} / accumulate {parts})" if parts > 1 else ""
    few = f"{facts.micro_batch} {facts.example}{'s' if facts.micro_batch > 1 else ''}"
    return f"batch norm measures mean and variance of only {few}{why}; group_norm needs no batch"


def he_for_saturating(facts: Facts) -> str | None:
    """He's variance makes up for the half that ReLU cuts off."""
    if facts.activation not in SATURATING or not facts.initialization.startswith("he_"):
        return None
    return f"{facts.initialization} is made for relu; {facts.activation} starts better from xavier_uniform"


def xavier_for_rectifying(facts: Facts) -> str | None:
    """Xavier's variance lets signals halve at each ReLU."""
    if facts.activation not in RECTIFYING or not facts.initialization.startswith("xavier_"):
        return None
    return f"{facts.initialization} is made for tanh; {facts.activation} starts better from he_normal"


def selu_alone(facts: Facts) -> str | None:
    """SELU normalises itself, but only from weights of variance 1 / fan in, and undisturbed."""
    if facts.activation != "selu":
        return None
    wrong = [] if facts.initialization == "lecun_normal" else ["needs initialization lecun_normal"]
    wrong += ["makes batch norm superfluous"] if _has(facts.model, _BatchNorm) else []
    if any(isinstance(m, _DropoutNd) and not isinstance(m, nn.AlphaDropout) and m.p > 0 for m in facts.model.modules()):
        wrong.append("is disturbed by dropout")
    return f"selu {', '.join(wrong)}" if wrong else None


def decay_of_norms(facts: Facts) -> str | None:
    """Gains and offsets are few and mean something: strong decay towards 0 hurts them."""
    strong = {id(p) for g in facts.groups if g.get("weight_decay", 0) > STRONG_DECAY for p in g["params"]}
    small = exempt(facts.model, ["bias", "norm"])
    spared = [name for name, parameter in trainable(facts.model) if id(parameter) in strong and name in small]
    if not spared:
        return None
    decay = facts.experiment.optimizer.weight_decay
    which = f"{len(spared)} tensors of norms and biases, such as {spared[0]}"
    return f"weight decay {decay:g} also shrinks {which}: `no_decay: [bias, norm]` spares them"


def sudden_start(facts: Facts) -> str | None:
    """Large batches come with large learning rates, which the first steps do not stand."""
    batch, optimizer = facts.experiment.training.batch, facts.experiment.optimizer
    if optimizer.name != "sgd" or batch < LARGE_BATCH or facts.learning_rate(0) < optimizer.lr / 2:
        return None
    if facts.steps_per_epoch == 1 and facts.experiment.training.limit_batches is None:  # the gradient has no noise
        return None
    return f"SGD with batches of {batch} starts at its full learning rate: `schedule.warmup: {{epochs: 5}}` is usual"


def single_pixels(facts: Facts) -> str | None:
    """A convolution over a map of one pixel sees nothing but padding around it."""
    found = [
        name
        for name, module in facts.model.named_modules()
        if facts.measured.inputs.get(module, ())[1:] == (1, 1) and prod(module.kernel_size) > 1
    ]
    if len(found) < 2:
        return None
    return f"{len(found)} convolutions, from {found[0]} on, see maps of one pixel: use larger images or fewer strides"


def endless_patience(facts: Facts) -> str | None:
    """Early stopping that cannot stop anything."""
    training = facts.experiment.training
    if training.early_stopping is None:
        return None
    evaluations = -(-facts.total_steps // (facts.steps_per_epoch * training.evaluate_every))
    patience = training.early_stopping.patience
    if patience < evaluations:
        return None
    return f"early stopping waits for {patience} evaluations, and the training has only {evaluations}"


def start_in_the_average(facts: Facts) -> str | None:
    """An average that reaches back to weights that had learnt nothing."""
    average, steps = facts.experiment.training.average, facts.total_steps
    if isinstance(average, EMA) and average.update_every > steps:
        return f"the average is updated every {average.update_every} steps, not once in {steps}: it stays at the start"
    if isinstance(average, EMA) and not average.warmup and (left := average.decay**steps) > MOST_OF_THE_START:
        found = f"after {steps} steps the average still holds {left:.0%} of the weights that the training starts from"
        return f"{found}: set `training.average.warmup: true`, or a lower `decay`"
    if isinstance(average, SWA) and (count := average.count(steps, facts.steps_per_epoch)) < 2:
        return f"`swa` would average the weights of {count} epoch end only: lower `start` or `epochs`, or train longer"
    return None


def slow_weights_that_stay(facts: Facts) -> str | None:
    """Lookahead is evaluated by its slow weights."""
    lookahead = facts.experiment.optimizer.lookahead
    if lookahead is None or facts.experiment.training.average is not None or lookahead.steps <= facts.total_steps:
        return None
    return f"the slow weights, which are evaluated, move every {lookahead.steps} steps: not once in {facts.total_steps}"


def floor_above_the_rate(facts: Facts) -> str | None:
    """A plateau that can lower nothing."""
    least, lr = getattr(facts.experiment.schedule, "min_lr", 0.0), facts.experiment.optimizer.lr
    return (
        f"the rate never falls: `schedule.min_lr` {least:g} is not below `optimizer.lr` {lr:g}" if least >= lr else None
    )


TRAPS: tuple[Callable[[Facts], str | None], ...] = (
    too_large, odd_batch, noisy_statistics, he_for_saturating, xavier_for_rectifying, selu_alone, decay_of_norms,
    sudden_start, single_pixels, endless_patience, floor_above_the_rate, start_in_the_average, slow_weights_that_stay,
)  # fmt: skip


def _has(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())
