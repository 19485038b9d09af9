"""What can be changed in any network: the keys that all of them share, carried out after the network is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from dltrain.config import ConfigError, Diagnostic, Fraction, Positive, reject
from dltrain.data.types import ImageShape, InputSpec
from dltrain.layers.activations import Activation
from dltrain.layers.attention import Attention
from dltrain.layers.dropout import DropBlock
from dltrain.layers.norms import Norm
from dltrain.layers.whitening import Whitening
from dltrain.models.base import ImageModel
from dltrain.tasks.outputs import Output

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dltrain.models.impl.changes import Adapter

SMALL = 64
"""Images up to this many pixels a side get the small stem under `auto`."""


class Adaptable(ImageModel):
    """A network with blocks that can be given attention and that can be dropped in training."""

    dropout: Fraction | None = None
    """Share of units zeroed in training, or null for the network's own; before the last layer where it has none."""
    attention: Attention | None = None
    """A gate on the maps of each block: in residual blocks before the addition, in networks without blocks before
    each pool; null for none besides the network's own."""
    drop_path: Fraction | None = None
    """Probability of skipping the last residual block, growing from 0 at the first; null for the network's own."""
    drop_block: DropBlock | None = None
    """Zero squares of the maps after each block in training; null for none."""
    spatial_dropout: Fraction | None = None
    """Share of whole maps zeroed in training after each block; null for none."""
    drop_connect: Fraction | None = None
    """Share of the weights of each linear layer zeroed in training, anew for each batch; null for none."""

    head_scale: Positive | None = None
    """What the logits are multiplied by, besides a factor of the network's own (as 1/9 of airbench's): below 1, they
    start small and move slowly (https://arxiv.org/abs/2404.00498). Null for none."""
    whitening: Whitening | None = None
    """A frozen first layer that whitens patches of the images, before the network: {kernel: 2}; null for none."""

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        if self.whitening is None:
            return super().make(inputs, outputs)
        shape = self.images(inputs)
        less = self.whitening.kernel - 1
        maps = ImageShape(self.whitening.maps(shape.channels), shape.height - less, shape.width - less)
        network = self.build(maps, outputs.count)
        whole = self.whitening.build(shape.channels, network, getattr(self, "activation", None))
        whole.adaptation = network.adaptation
        return whole

    def start(self, network: nn.Module, images: Callable[[int], Iterable[Tensor]]) -> None:
        if self.whitening is not None:
            network.measure(images(self.whitening.images), self.whitening.epsilon)  # type: ignore[operator]

    @model_validator(mode="after")
    def _nothing_before_pretrained_weights(self) -> Adaptable:
        if self.whitening is not None and getattr(self, "pretrained", False):
            raise reject("whitening", "pretrained weights want images, not what `whitening` makes of them")
        return self

    @model_validator(mode="after")
    def _norms_or_none(self) -> Adaptable:
        start = self.initialization
        if start is not None and start.without_norms and getattr(self, "norm", None) is not None:
            raise reject("norm", f"initialization `{start.name}` is for networks without norms: leave `norm` out")
        return self

    def adapted(self, network: nn.Module, shape: ImageShape) -> nn.Module:
        """`network` with what the keys ask for, and the report of it as its `adaptation`.

        Raises ConfigError for what this network cannot take, and says why.
        """
        from dltrain.models.impl.changes import Adapter

        adapter = Adapter(self.name, network, shape)
        if self.initialization is not None and self.initialization.without_norms:
            adapter.scalars()
        adapter.drop_connect(self.drop_connect)
        self.exchange(adapter)
        adapter.dropout(self.dropout)
        adapter.head_scale(self.head_scale)
        adapter.attention(self.attention)
        adapter.drop_path(self.drop_path)
        adapter.after_blocks(self.drop_block, self.spatial_dropout)
        return adapter.finish()

    def exchange(self, adapter: Adapter) -> None:
        """What only some networks have exchanged: their activations and norms."""


class Exchangeable(Adaptable):
    """A network of a library, whose activations, norms and stem are exchanged after it is built."""

    activation: Activation | None = None
    """What takes the place of each activation but those inside gates; null for the published ones."""
    norm: Norm | None = None
    """What takes the place of each norm of maps, with its gains and offsets; null for the published ones."""
    stem: Literal["auto", "small", "large"] = "large"
    """`large`: as published; `small`: the first convolution becomes 3x3 with stride 1, and the pool after it is left
    out; `auto`: small for images up to 64 pixels a side, where the network has such a stem."""

    def exchange(self, adapter: Adapter) -> None:
        adapter.activation(self.activation)
        adapter.norm(self.norm)

    def fit_stem(self, network: nn.Module, shape: ImageShape) -> nn.Module:
        """`network`, new and as published, with the stem that images of `shape` get."""
        from dltrain.models.impl.stem import small_stem

        if getattr(self, "pretrained", False):
            return network
        small = self.stem == "small" or (self.stem == "auto" and max(shape.height, shape.width) <= SMALL)
        if small and not small_stem(network, shape) and self.stem == "small":
            reason = "its first convolution has no stride to lose"
            raise ConfigError([Diagnostic(f"model `{self.name}` takes no `stem: small`: {reason}", key="stem")])
        return network
