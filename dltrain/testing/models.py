"""The contracts of networks: their size, and that they train, are saved, and keep their meaning in any format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dltrain.data.targets import NoTarget
from dltrain.data.types import ImageShape
from dltrain.models import Model
from dltrain.tasks import Reconstruction
from dltrain.tasks.impl.objectives import answer_of
from dltrain.tasks.losses import MeanSquaredError
from dltrain.tasks.outputs import LikeInput, Logits
from dltrain.testing.contract import Contract


def image_shape(text: str) -> ImageShape:
    """`3x32x32` as a shape."""
    channels, height, width = map(int, text.split("x"))
    return ImageShape(channels, height, width)


class Networks(Contract):
    """What both contracts share."""

    kind = Model

    @classmethod
    def build(cls, choice: Any, shape: str, classes: int = 10) -> nn.Module:
        """The network, as the seed 0 makes it."""
        torch.manual_seed(0)
        section = cls.parse(choice)
        outputs = LikeInput() if section.reconstructs else Logits(classes)
        network: nn.Module = section.make(image_shape(shape), outputs)
        return network


def learnt(outputs: Any, images: Tensor, *, reconstructs: bool) -> tuple[Tensor, Tensor]:
    """What a network answers to images, and what training minimises (B,): their classes are 0, 1, 2, ..., and a network
    that `reconstructs` has no use for them."""
    if not reconstructs:
        return outputs, nn.functional.cross_entropy(outputs, torch.arange(len(images)), reduction="none")
    task = Reconstruction().build(MeanSquaredError(), NoTarget(), torch.device("cpu"))
    answer, _, losses = task.losses(outputs, images)
    return answer, losses


class ModelSizeContract(Networks):
    """A network has the published number of parameters that its class states in `parameters`. Nothing is computed."""

    def test_it_has_its_number_of_parameters(self, name: str) -> None:
        entry = type(self.parse(name))
        facts = {(shape, classes): n for (own, shape, classes), n in entry.parameters.items() if own == name}
        assert facts, f"{entry.__name__}.parameters says nothing about {name}"
        for (shape, classes), expected in facts.items():
            with torch.device("meta"):
                network = self.build(name, shape, classes)
            assert sum(parameter.numel() for parameter in network.parameters()) == expected


class ModelContract(Networks):
    """A network trains, is made anew from its seed and its state, and means the same in any memory format."""

    shapes: ClassVar[Mapping[str, str]] = {}
    """By name, the images to try it with, `3x32x32`; else the smallest ones in the `parameters` of its class."""

    def test_it_trains_and_is_made_anew(self, name: str) -> None:
        known = [shape for own, shape, classes in type(self.parse(name)).parameters if own == name and classes == 10]
        shape = self.shapes.get(name) or min(known, key=lambda text: math.prod(map(int, text.split("x"))))
        network = self.build(name, shape)
        images = torch.randn(2, *map(int, shape.split("x")))
        kept = images.clone()
        reconstructs = self.parse(name).reconstructs
        answer, losses = learnt(network(images), images, reconstructs=reconstructs)
        assert answer.shape == (images.shape if reconstructs else (2, 10)) and answer.isfinite().all()
        assert torch.equal(images, kept), "it writes into its input"
        losses.mean().backward()
        for key, parameter in network.named_parameters():
            frozen = not parameter.requires_grad  # as the filters of a whitening layer are
            assert frozen or (parameter.grad is not None and parameter.grad.isfinite().all()), key

        again = self.build(name, shape)  # same seed, same weights: and its state can be loaded
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))
        again.load_state_dict(network.state_dict())
        network.eval(), again.eval()
        with torch.no_grad():
            expected = answer_of(network(images))
            assert torch.equal(answer_of(again(images)), expected)
            channels_last = again.to(memory_format=torch.channels_last)
            out = answer_of(channels_last(images.to(memory_format=torch.channels_last)))
            torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)
            with torch.autocast("cpu", torch.bfloat16):
                assert answer_of(network(images)).isfinite().all()
