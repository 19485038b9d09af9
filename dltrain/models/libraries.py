"""Every classification network of torchvision and timm, by name.

The names are known from generated tables (`scripts/refresh_library_tables.py`), so that checking an
experiment imports neither library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING

from pydantic import model_validator

from dltrain.config import Positive, reject
from dltrain.data.pretrained import PretrainedInputs
from dltrain.data.types import ImageShape
from dltrain.models.adaptable import Exchangeable

if TYPE_CHECKING:
    from torch import nn


@cache
def table(library: str) -> Mapping[str, tuple[str, ...]]:
    """Each network of `library` with the tags of its pretrained weights, the default one first."""
    text = resources.files("dltrain.models").joinpath(f"{library}_models.txt").read_text("utf-8")
    rows = (line.split() for line in text.splitlines()[1:])
    return {name: tuple(tags) for name, *tags in rows}


_WITH_HEADS = ("torchvision/googlenet", "torchvision/inception_v3")
"""torchvision's networks with auxiliary heads."""


class LibraryModel(Exchangeable):
    """A network of torchvision or timm, by its own name or by one of ours."""

    name: str
    pretrained: bool = False
    """Start from the library's ImageNet weights, with a new last layer."""

    def library_name(self) -> str:
        """The network as `library/name`, where a tag of weights may end the name."""
        return self.name

    @model_validator(mode="after")
    def _has_weights(self) -> LibraryModel:
        library, _, full = self.library_name().partition("/")
        name, _, tag = full.partition(".")
        tags = table(library).get(name)
        if tags is None or (tag and tag not in tags):
            raise reject("name", f"{library} has no model `{self.name}`")
        if self.pretrained and not tags:
            raise reject("pretrained", f"there are no pretrained weights of `{self.name}`")
        if tag and not self.pretrained:
            raise reject("name", f"`{tag}` names pretrained weights: set `pretrained: true`, or write `timm/{name}`")
        if self.pretrained and self.stem == "small":
            raise reject("stem", "pretrained weights have the large stem; use `stem: large`, or `pretrained: false`")
        return self

    def build(self, shape: ImageShape, outputs: int) -> nn.Module:
        from dltrain.models.impl.library_options import Wishes

        library, _, name = self.library_name().partition("/")
        if library == "torchvision":
            from dltrain.models.impl.from_torchvision import build
        else:
            from dltrain.models.impl.from_timm import build
        wishes = Wishes(
            self.name, self.pretrained, self.dropout, self.drop_path, partial(self.fit_stem, shape=shape),
            exchangeable=self.activation is not None, auxiliary=self.auxiliary_weight > 0,
        )  # fmt: skip
        network = build(name, shape, outputs, wishes)
        return self.adapted(network, shape)

    def preprocessing(self) -> PretrainedInputs | None:
        if not self.pretrained:
            return None
        library, _, name = self.library_name().partition("/")
        if library == "torchvision":
            from dltrain.models.impl.from_torchvision import preprocessing
        else:
            from dltrain.models.impl.from_timm import preprocessing
        return preprocessing(name)


class TorchvisionModel(LibraryModel):
    """A classification network of torchvision, as published there, without auxiliary heads."""

    source = "https://docs.pytorch.org/vision/stable/models.html"
    name: str

    @classmethod
    def names(cls) -> Iterable[str]:
        return (name for short in table("torchvision") if (name := f"torchvision/{short}") not in _WITH_HEADS)


class WithAuxiliaryHeads(LibraryModel):
    """A network of a library that has auxiliary heads."""

    auxiliary: Positive | None = None
    """What the loss of each auxiliary head counts in training, or null for no such heads; torchvision trains with 0.4,
    the paper of `googlenet` with 0.3. The reported losses are those of the network's own output."""

    @model_validator(mode="after")
    def _heads_start_random(self) -> WithAuxiliaryHeads:
        if self.auxiliary is not None and self.pretrained:
            raise reject("auxiliary", "auxiliary heads are for training from scratch: leave out `pretrained`")
        return self


class TorchvisionInception(WithAuxiliaryHeads):
    """torchvision's inception networks: its `googlenet` has batch norm, and 3x3 convolutions for the 5x5 ones of the
    paper; the auxiliary head of `inception_v3` needs images of 299 pixels or more.
    """

    source = "https://docs.pytorch.org/vision/stable/models.html"
    parameters = {
        ("torchvision/googlenet", "3x224x224", 1000): 6_624_904,
        ("torchvision/inception_v3", "3x224x224", 1000): 23_834_568,
    }
    name: str

    @classmethod
    def names(cls) -> Iterable[str]:
        return _WITH_HEADS


class TimmModel(LibraryModel):
    """A network of timm; `timm/resnet50.a1_in1k` names one of its sets of pretrained weights.

    Pretrained without a tag means timm's default set.
    """

    source = "https://huggingface.co/docs/timm"
    name: str

    @classmethod
    def names(cls) -> Iterable[str]:
        for name, tags in table("timm").items():
            yield f"timm/{name}"
            yield from (f"timm/{name}.{tag}" for tag in tags)
