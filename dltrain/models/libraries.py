"""Every classification network of torchvision and timm, by name.

The names are known from generated tables (`scripts/refresh_library_tables.py`), so that checking an
experiment imports neither library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from pydantic import model_validator

from dltrain.config import Fraction, reject
from dltrain.data.base import ImageShape
from dltrain.models.base import Model, Preprocessing

if TYPE_CHECKING:
    from torch import nn


@cache
def table(library: str) -> Mapping[str, tuple[str, ...]]:
    """Each network of `library` with the tags of its pretrained weights, the default one first."""
    text = resources.files("dltrain.models").joinpath(f"{library}_models.txt").read_text("utf-8")
    rows = (line.split() for line in text.splitlines()[1:])
    return {name: tuple(tags) for name, *tags in rows}


class TorchvisionModel(Model):
    """A classification network of torchvision, as published there, without auxiliary heads."""

    source = "https://docs.pytorch.org/vision/stable/models.html"
    name: str
    pretrained: bool = False
    """Start from torchvision's best ImageNet weights, with a new last layer."""
    dropout: Fraction | None = None
    """Share of units zeroed in training, or null for the network's own."""
    drop_path: Fraction | None = None
    """Probability of skipping the last residual block, growing from 0 at the first; null for the network's own."""

    @classmethod
    def names(cls) -> Iterable[str]:
        return (f"torchvision/{name}" for name in table("torchvision"))

    @model_validator(mode="after")
    def _has_weights(self) -> TorchvisionModel:
        tags = table("torchvision").get(self.name.removeprefix("torchvision/"))
        if tags is None:
            raise reject("name", f"torchvision has no model `{self.name}`")
        if self.pretrained and not tags:
            raise reject("pretrained", f"there are no pretrained weights of `{self.name}`")
        return self

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        from dltrain.models.networks import from_torchvision

        name = self.name.removeprefix("torchvision/")
        return from_torchvision.build(
            name, shape, classes, self.pretrained, self.dropout, self.drop_path, label=self.name
        )

    def preprocessing(self) -> Preprocessing | None:
        from dltrain.models.networks import from_torchvision

        return from_torchvision.preprocessing(self.name.removeprefix("torchvision/")) if self.pretrained else None


class TimmModel(Model):
    """A network of timm; `timm/resnet50.a1_in1k` names one of its sets of pretrained weights."""

    source = "https://huggingface.co/docs/timm"
    name: str
    pretrained: bool = False
    """Start from the weights that the name's tag says (timm's default without one), with a new last layer."""
    dropout: Fraction | None = None
    """Share of the last layer's inputs zeroed in training, or null for the network's own."""
    drop_path: Fraction | None = None
    """Probability of skipping the last residual block, growing from 0 at the first; null for the network's own."""

    @classmethod
    def names(cls) -> Iterable[str]:
        for name, tags in table("timm").items():
            yield f"timm/{name}"
            yield from (f"timm/{name}.{tag}" for tag in tags)

    @model_validator(mode="after")
    def _has_weights(self) -> TimmModel:
        name, _, tag = self.name.removeprefix("timm/").partition(".")
        tags = table("timm").get(name)
        if tags is None or (tag and tag not in tags):
            raise reject("name", f"timm has no model `{self.name}`")
        if self.pretrained and not tags:
            raise reject("pretrained", f"there are no pretrained weights of `{self.name}`")
        if tag and not self.pretrained:
            raise reject("name", f"`{tag}` names pretrained weights: set `pretrained: true`, or write `timm/{name}`")
        return self

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        from dltrain.models.networks import from_timm

        name = self.name.removeprefix("timm/")
        return from_timm.build(name, shape, classes, self.pretrained, self.dropout, self.drop_path)

    def preprocessing(self) -> Preprocessing | None:
        from dltrain.models.networks import from_timm

        return from_timm.preprocessing(self.name.removeprefix("timm/")) if self.pretrained else None
