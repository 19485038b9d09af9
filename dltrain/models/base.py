"""The kind `Model`: a section that builds a network for given inputs and outputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import model_validator

from dltrain.config import Choice, reject
from dltrain.data.pretrained import PretrainedInputs
from dltrain.data.types import ImageShape, InputSpec, require_images
from dltrain.layers.initializations import Initialization
from dltrain.tasks.losses import Loss
from dltrain.tasks.outputs import Output

if TYPE_CHECKING:
    from torch import Tensor, nn


class Model(Choice):
    """A network that turns inputs, such as images (B, C, H, W), into outputs, such as logits (B, K); in training, one
    with auxiliary heads turns them into a tuple of the outputs and those of each head.

    One with an objective of its own gives `Objective` (tasks/impl/objectives.py): its outputs, and what they add to the
    loss or report in its place.

    `parameters` holds the published number of parameters for each name, image shape and number of
    classes: `{("lenet5", "1x28x28", 10): 61_706}`. The contract test requires it of our own networks.
    """

    kind: ClassVar[str] = "models"

    name: str
    initialization: Initialization | None = None
    """What the weights of linear layers and convolutions start from, instead of the network's own start."""
    parameters: ClassVar[dict[tuple[str, str, int], int]] = {}

    @model_validator(mode="after")
    def _one_start(self) -> Model:
        if self.initialization is not None and getattr(self, "pretrained", False):
            raise reject("initialization", "`initialization` would overwrite the pretrained weights")
        return self

    @property
    def auxiliary_weight(self) -> float:
        """What the loss of each auxiliary head counts, where there are any."""
        return getattr(self, "auxiliary", None) or 0.0

    inputs: ClassVar[tuple[type[InputSpec], ...]]
    """What it takes."""
    reconstructs: ClassVar[bool] = False
    """Whether its output has the shape of its input; else it is a row of as many numbers as are asked for."""
    replaces_loss: ClassVar[bool] = False
    """Whether it brings all that training minimises, so that `loss` says nothing."""
    outputs: ClassVar[tuple[type[Output], ...]] = (Output,)
    """What it gives: by default as many numbers as are asked for, whatever they mean."""

    @property
    def takes_probabilities(self) -> bool:
        """Whether its inputs must lie in 0..1."""
        return False

    def default_loss(self) -> Loss | None:
        """What training minimises where an experiment does not say it; None: what the task minimises."""
        return None

    @abstractmethod
    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        """The whole network with random (or pretrained) weights. Raises ConfigError when it cannot take `inputs`."""

    def start(self, network: nn.Module, images: Callable[[int], Iterable[Tensor]]) -> None:
        """Set what a new network takes from the training images: `images(n)` gives batches (B, C, H, W) of about n
        of them, as the network gets them."""

    def preprocessing(self) -> PretrainedInputs | None:
        """What the pretrained weights expect, or None when the weights start random."""
        return None


class ImageModel(Model):
    """A network of images, with a last layer of any number of outputs."""

    inputs = (ImageShape,)

    @abstractmethod
    def build(self, shape: ImageShape, outputs: int) -> nn.Module:
        """The network (B, C, H, W) -> (B, outputs), with random (or pretrained) weights, without what `make` puts in
        front of it. Raises ConfigError when it cannot take `shape`."""

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        return self.build(self.images(inputs), outputs.count)

    def images(self, inputs: InputSpec) -> ImageShape:
        """The inputs, which must be images. Raises ConfigError when they are not."""
        return require_images(inputs, f"model `{self.name}`")
