"""Published numbers of parameters of networks with an option, which the facts of a class have no place for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dltrain.data.types import ImageShape
from dltrain.layers.attention import ConvolutionalBlockAttention
from dltrain.models import Model
from dltrain.tasks.outputs import Logits


def count(value: Any, shape: ImageShape, classes: int) -> int:
    choice = Model.parse(value)
    assert isinstance(choice, Model)
    with torch.device("meta"):
        return sum(p.numel() for p in choice.make(shape, Logits(classes)).parameters())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("torchvision/googlenet", 6_624_904),
        ("timm/seresnet18", 11_779_624),
        ({"name": "se_resnet50", "activation": "relu"}, 28_088_024),
        ({"name": "googlenet", "norm": "batch_norm"}, 7_005_832),
        ({"name": "shufflenet_v1", "groups": 1}, 1_531_936),
        ({"name": "shufflenet_v1", "groups": 8}, 2_434_768),
        ({"name": "cbam_resnet50", "attention": {"name": "cbam", "bias": True}}, 28_089_624),
        ({"name": "scse_resnet50", "attention": {"name": "scse", "reduction": 16}}, 28_103_144),
    ],
    ids=str,
)
def test_variant_has_its_published_number_of_parameters(value: Any, expected: int) -> None:
    assert count(value, ImageShape(3, 224, 224), 1000) == expected


@pytest.mark.parametrize("name", ["cbam_resnet50", "eca_resnet50", "scse_resnet50"])
def test_every_block_is_gated_before_the_addition(name: str) -> None:
    choice = Model.parse(name)
    assert isinstance(choice, Model)
    with torch.device("meta"):
        network = choice.make(ImageShape(3, 32, 32), Logits(10))
    assert network.adaptation.lines() == [  # type: ignore[union-attr, operator]
        f"attention: {name.removesuffix('_resnet50')} in 16 places; 16 of them on a residual branch"
    ]


def test_another_gate_takes_the_published_ones_place() -> None:
    network = Model.parse({"name": "eca_resnet50", "attention": "cbam"}).make(ImageShape(3, 32, 32), Logits(10))  # type: ignore[attr-defined]
    gates = [type(m).__name__ for m in network.modules() if "Attention" in type(m).__name__]
    assert set(gates) == {ConvolutionalBlockAttention.__name__} and len(gates) == 16


def test_mobilenets_stem_suits_the_images() -> None:
    sides = []
    for shape, stem in ((32, "auto"), (32, "large"), (96, "auto")):
        network = Model.parse({"name": "mobilenet_v1_025", "stem": stem}).make(ImageShape(3, shape, shape), Logits(10))  # type: ignore[attr-defined]
        sides.append(network[0](torch.zeros(1, 3, shape, shape)).shape[-1])
    assert sides == [32, 16, 48]


@pytest.mark.slow
def test_nasnets_cells_make_the_large_network_too() -> None:
    """As many weights as timm's, which is checked against the published ones; sizes are halved five times."""
    from dltrain.models.impl.nasnet import NASNet
    from dltrain.models.impl.parts import Layers

    parts = Layers(lambda _: nn.ReLU(), lambda _: nn.ReLU(), nn.BatchNorm2d, shifts=True)
    with torch.device("meta"):
        network = NASNet(6, 4032, 96, 3, 1000, parts)
        assert sum(p.numel() for p in network.parameters()) == 88_753_150
        maps: list[torch.Size] = []
        network.head.register_forward_hook(lambda *call: maps.append(call[1][0].shape))
        network(torch.empty(2, 3, 331, 331))
    assert maps == [(2, 4032, 11, 11)]


def test_inception_resnet_v1_with_facenets_sixth_module_has_its_parameters() -> None:
    from dltrain.models.impl.inception import ResidualInception, inception_resnet_v1
    from dltrain.models.impl.parts import Layers

    def relu(channels: int) -> nn.Module:
        return nn.ReLU()

    parts = Layers(relu, relu, nn.BatchNorm2d, shifts=True)
    with torch.device("meta"):
        trunk = inception_resnet_v1(3, 1, parts, 0.0)[:-1]  # type: ignore[index]
        more = ResidualInception(1792, [[(192, 1)], [(192, 1), (192, (1, 3)), (192, (3, 1))]], 1.0, parts)
    assert sum(p.numel() for network in (trunk, more) for p in network.parameters()) == 22_564_096
    maps = [m.shape[2:] for m in shapes(trunk) if m.shape[1] in (256, 896, 1792)]
    assert maps[0] == (35, 35) and maps[-1] == (1, 1) and (17, 17) in maps and (8, 8) in maps


def shapes(trunk: nn.Module) -> list[torch.Tensor]:
    """What each module of a chain puts out for 299 pixels."""
    found, maps = [], torch.empty(2, 3, 299, 299, device="meta")
    for module in trunk.children():
        maps = module(maps)
        found.append(maps)
    return [maps for maps in found if maps.ndim == 4]
