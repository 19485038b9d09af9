"""The kind `Optimizer`, and what several of its entries share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dltrain.config import Choice, Fraction, NonNegative, Positive, Section, reject
from dltrain.optim.exemptions import known_words
from dltrain.optim.optimizers.forms import FUSED_EVERYWHERE, kernels
from dltrain.optim.wrappers import SAM, Lookahead

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dltrain.optim.impl.averages import InterpolatedAverage


class Group(Section):
    """Parameters that are trained with options of their own."""

    rivals = ((("lr",), ("lr_scale",)),)

    match: str
    """Pattern of whole parameter names: `head.*`, `*.weight`. The first group that matches a parameter has it."""
    lr: Positive | None = None
    """Their peak learning rate, also under `layer_decay`; it follows the schedule in proportion. Null: the
    optimizer's."""
    lr_scale: Positive | None = None
    """Their learning rate as a share of what it would be, that is the optimizer's, or less by `layer_decay`."""
    weight_decay: NonNegative | None = None
    """Their weight decay, whatever `no_decay` says; null: the optimizer's, and `no_decay` holds."""
    after: NonNegative = 0.0
    """Epochs before they begin to learn; until then they are frozen."""
    until: Positive | None = None
    """Epochs after which they stop learning; null: they learn to the end."""
    frozen: bool = False
    """They never learn. While parameters are frozen, by this, `after` or `until`, nothing moves them, their gradients
    do not count in `clip_norm`, and a norm of which no parameter learns keeps its statistics and works with them, as in
    evaluation."""

    @field_validator("lr", "lr_scale", "until", mode="before")
    @classmethod
    def _not_frozen_by_0(cls, value: Any, info: ValidationInfo) -> Any:
        if type(value) in (int, float) and value == 0:
            key = info.field_name or ""
            raise reject(key, f"`{key}` must be above 0; `frozen: true` says that the group never learns")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Group:
        if self.lr is not None and self.lr_scale is not None:
            raise reject("lr_scale", "`lr` and `lr_scale` both say how fast the group learns; keep one")
        if self.until is not None and self.until <= self.after:
            raise reject("until", f"the group would never learn: `after` is {self.after:g}, `until` {self.until:g}")
        given = {
            "lr": self.lr, "lr_scale": self.lr_scale, "weight_decay": self.weight_decay, "after": self.after or None,
            "until": self.until,
        }  # fmt: skip
        idle = [key for key, value in given.items() if value is not None]
        if self.frozen and idle:
            raise reject(idle[0], f"a `frozen` group never learns, and `{idle[0]}` would do nothing")
        if not self.frozen and not idle:
            message = "a group changes nothing without `lr`, `lr_scale`, `weight_decay`, `after`, `until` or `frozen`"
            raise reject("match", message)
        return self


class Optimizer(Choice):
    """How gradients change the weights.

    `waits` marks those that read numbers back from the device at each step, which is slow there. At `trial_lr` it
    lowers the loss of the contract test.
    """

    kind: ClassVar[str] = "optimizers"
    waits: ClassVar[bool] = False
    trial_lr: ClassVar[float] = 0.05
    needs_closure: ClassVar[bool] = False
    """Whether a step evaluates the loss of its batch several times: `step` takes a closure."""
    schedules: ClassVar[tuple[str, ...] | None] = None
    """The schedules that it takes; null for all."""

    name: str
    lr: Positive
    """Peak learning rate; the schedule scales it."""
    weight_decay: NonNegative = 0.0
    """L2 penalty: this times the weight is added to its gradient."""
    no_decay: list[str] = []
    """Parameters without weight decay: `bias` (with all that is added: class tokens, embeddings of positions, tables of
    relative ones), `norm` (of normalisation layers, with other vectors, such as layer scales), `activation` (of
    trainable activations), or patterns of names such as `classifier.*`. Empty: all decay, as in torch."""
    groups: list[Group] = []
    """Parameters with a learning rate or weight decay of their own: [{match: "head.*", lr: 0.1}]."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rates fall by this factor from each layer to the one before it, the last layer having the full rate:
    0.65 to 0.9 is usual for fine-tuning. Null: all learn alike."""
    lookahead: Lookahead | None = None
    """Slow weights that follow the optimizer's: {steps: 5, alpha: 0.5}; null for none."""
    sam: SAM | None = None
    """Take each gradient where the loss is sharpest: {rho: 0.05}; null for none."""

    @field_validator("no_decay")
    @classmethod
    def _no_misspelt_word(cls, words: list[str]) -> list[str]:
        return known_words("no_decay", words)

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """The torch optimizer of parameter groups that carry their own `weight_decay`."""

    def options_of(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """What this optimizer must know about parameters besides, by name: those that differ in it get groups apart."""
        return {}

    def average(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """The average of the weights that the optimizer itself keeps, like that which an `Average` builds, or None."""
        return None

    def first_step(self, w: float, g: float) -> float | None:
        """The weight after one step from `w` with gradient `g`: what the contract test checks. None: unchecked."""
        return None


def check_betas(betas: list[float], key: str = "betas") -> list[float]:
    """The two shares of Adam's running means; for the validator of a section."""
    if len(betas) != 2:
        raise reject(key, f"`{key}` are two numbers, of the gradient and of its square, not {len(betas)}")
    return betas


class AdamOptions(Optimizer):
    """The options that Adam and its variants share."""

    lr: Positive = 1e-3
    """Peak learning rate; about the size of each weight's change per step."""
    betas: list[Fraction] = [0.9, 0.999]
    """Share kept of the running mean of the gradient, and of its square: two numbers."""
    eps: Positive = 1e-8
    """Added to the root, against division by 0."""
    amsgrad: bool = False
    """Divide by the largest mean square so far (1904.09237)."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def _arguments(self, device: torch.device) -> dict[str, Any]:
        return {
            "lr": self.lr, "betas": (self.betas[0], self.betas[1]), "eps": self.eps, "amsgrad": self.amsgrad,
            "weight_decay": self.weight_decay, **kernels(device, FUSED_EVERYWHERE),
        }  # fmt: skip


class AdamVariant(Optimizer):
    """The options that the variants of Adam share."""

    lr: Positive = 2e-3
    """Peak learning rate; about the size of each weight's change per step."""
    betas: list[Fraction] = [0.9, 0.999]
    """Share kept of the running mean of the gradient, and of its square or size: two numbers."""
    eps: Positive = 1e-8
    """Added to the divisor, against division by 0."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def _arguments(self, device: torch.device) -> dict[str, Any]:
        return {
            "lr": self.lr, "betas": (self.betas[0], self.betas[1]), "eps": self.eps,
            "weight_decay": self.weight_decay, **kernels(device, ()),
        }  # fmt: skip


Inner = Annotated[float, Field(gt=0, lt=1)]


class ScheduleFree(Optimizer):
    """What the schedule-free optimizers share: gradients are taken at y = (1 - b) z + b x, steps at z, and x, the mean
    of all z, is what is evaluated and kept.

    They take schedule `constant`, with a warm-up or without, and no other average of the weights. Batch norm's
    statistics are those of y: for a network with batch norm a `momentum` of the norm near 0.01 keeps them close.
    """

    source = "https://arxiv.org/abs/2405.15682"
    schedules: ClassVar[tuple[str, ...]] = ("constant",)

    @abstractmethod
    def interpolation(self) -> float:
        """b."""

    def average(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> InterpolatedAverage:
        from dltrain.optim.impl.averages import InterpolatedAverage

        return InterpolatedAverage(model, optimizer, self.interpolation())
