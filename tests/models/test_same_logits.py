"""The same weights give the same logits in our network as in a library's, wherever a library has the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from rationing import some
from torch import nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from dltrain.data.types import ImageShape
from dltrain.models import Model
from dltrain.models.gated import GatedResNet
from dltrain.models.impl.modular import AuxiliaryHead, mobilenet_v1
from dltrain.models.impl.parts import Layers
from dltrain.models.published import PublishedModel
from dltrain.tasks.outputs import Logits

PUBLISHED = [
    min(entry.libraries, key=lambda name: min(n for (own, *_), n in entry.parameters.items() if own == name))
    for entry in Model.catalogue
    if issubclass(entry, PublishedModel) and entry.libraries and not issubclass(entry, GatedResNet)
]
LARGE = {"nasnet_large", "wide_resnet50_2", "inception_resnet_v2"}
"""Compared on the meta device, by the names and shapes of their weights."""


def ours(value: Any, side: int = 32, classes: int = 10) -> nn.Module:
    choice = Model.parse(value)
    assert isinstance(choice, Model)
    return choice.make(ImageShape(3, side, side), Logits(classes)).eval()


def library(label: str) -> nn.Module:
    source, _, name = label.partition("/")
    if source == "timm":
        return timm.create_model(name, num_classes=10).eval()
    known = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=10, **known)
    return network.eval()


@torch.no_grad()
def randomize(network: nn.Module) -> nn.Module:
    """Running means and variances as after a training: those of a new network hide what is wrong with norms."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.eps = 1e-5
    return network.eval()


@torch.no_grad()
def assert_same_logits(network: nn.Module, reference: nn.Module, side: int = 32) -> None:
    """Copy the weights in their order, which must have the same shapes, and compare what comes out."""
    randomize(reference)
    theirs = list(reference.state_dict().values())
    own = network.state_dict()
    assert [tuple(a.shape) for a in own.values()] == [tuple(b.shape) for b in theirs]
    network.load_state_dict(dict(zip(own, theirs, strict=True)))
    images = torch.randn(2, 3, side, side)
    expected = reference(images)
    torch.testing.assert_close(network(images) / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", some(PUBLISHED, 3))
def test_published_name_has_the_librarys_weights_and_logits(name: str) -> None:
    entry = Model.lookup(name)
    assert entry is not None and issubclass(entry, PublishedModel)
    with torch.device("meta"):
        network = ours({"name": name, "stem": "large"}, 96)
    with torch.device("meta" if name in LARGE else "cpu"):
        reference = library(entry.libraries[name])
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }
    if name not in LARGE:
        network.load_state_dict(reference.state_dict(), assign=True)
        images = torch.randn(2, 3, 96, 96)
        with torch.no_grad():
            torch.testing.assert_close(network(images), reference(images), rtol=1e-5, atol=1e-5)


def test_densenet_bc_is_torchvisions_with_a_small_stem() -> None:
    reference = models.DenseNet(12, (16, 16, 16), num_init_features=24, num_classes=10)  # type: ignore[arg-type]
    reference.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(reference.features, name, nn.Identity())
    assert_same_logits(ours("densenet_bc_100_12"), reference)


def test_resnext_for_small_images_is_torchvisions_with_three_stages() -> None:
    reference = models.ResNet(Bottleneck, [3, 3, 3, 1], num_classes=10, groups=8, width_per_group=64)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool, reference.layer4 = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    reference.fc = nn.Linear(1024, 10)
    assert_same_logits(ours("resnext29_8x64d"), reference, 8)


def test_vgg_for_small_images_has_torchvisions_convolutions() -> None:
    network = list(ours("vgg16_cifar").children())
    end = max(index for index, layer in enumerate(network) if isinstance(layer, nn.MaxPool2d)) + 1  # its ReLU
    assert_same_logits(nn.Sequential(*network[: end + 1]), models.vgg16_bn(num_classes=2, init_weights=False).features)


def test_googlenet_is_torchvisions_with_the_windows_of_the_paper() -> None:
    reference: Any = models.googlenet(weights=None, num_classes=10, aux_logits=True, init_weights=False)
    reference.maxpool4 = nn.MaxPool2d(3, 2, ceil_mode=True)
    for module in list(reference.modules()):
        if type(module).__name__ == "Inception":
            old = module.branch3[1].conv
            module.branch3[1].conv = nn.Conv2d(old.in_channels, old.out_channels, 5, padding=2, bias=False)
    network: Any = ours({"name": "googlenet", "norm": "batch_norm", "auxiliary": 0.3})
    for head, theirs in zip(network.heads, (reference.aux1, reference.aux2), strict=True):
        assert isinstance(head, AuxiliaryHead)
        channels = theirs.conv.conv.in_channels
        maps = torch.randn(2, channels, 6, 6)
        randomize(theirs)
        head.load_state_dict(dict(zip(head.state_dict(), theirs.state_dict().values(), strict=True)))
        with torch.no_grad():
            torch.testing.assert_close(head(maps), theirs(maps), rtol=1e-5, atol=1e-5)
    reference.aux1 = reference.aux2 = None
    assert_same_logits(ours({"name": "googlenet", "norm": "batch_norm"}, 64), reference, 64)


def test_mobilenet_is_timms() -> None:
    parts = Layers(lambda _: nn.ReLU6(), lambda _: nn.ReLU6(), nn.BatchNorm2d, shifts=True)
    assert_same_logits(mobilenet_v1(1.0, 3, 10, parts).eval(), timm.create_model("mobilenetv1_100", num_classes=10), 64)
