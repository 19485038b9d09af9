"""Networks that are one chain of convolutions: AlexNet, ZFNet, network in network, VGG for small images."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from dltrain.data.types import ImageShape
from dltrain.models.impl.parts import Layers, he_initialize, size_after


def alexnet(shape: ImageShape, classes: int, parts: Layers, dropout: float) -> nn.Module:
    """(B, C, H, W) -> (B, K), of Krizhevsky et al. (2012); 224 pixels become 55, 27, 13 and 6.

    W ~ N(0, 0.01); biases 1 in convolutions 2, 4 and 5 and in the hidden affine layers, else 0.
    """
    windows = [(11, 4, 2), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 2, 0)]
    height, width = size_after(shape.height, *windows), size_after(shape.width, *windows)
    network = nn.Sequential(
        *(nn.Conv2d(shape.channels, 96, 11, 4, 2), parts.activation(96), parts.norm(96), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), parts.activation(256), parts.norm(256), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), parts.activation(384)),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), parts.activation(384)),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), parts.activation(256), nn.MaxPool2d(3, 2)),
        *_hidden_layers(256 * height * width, classes, parts, dropout),
    )
    convolutions, affine = _initialize_narrowly(network)
    for layer in (convolutions[1], convolutions[3], convolutions[4], affine[0], affine[1]):
        assert layer.bias is not None
        nn.init.ones_(layer.bias)
    return network


def zfnet(shape: ImageShape, classes: int, parts: Layers, dropout: float) -> nn.Module:
    """(B, C, H, W) -> (B, K), of Zeiler & Fergus (2013), where norms follow the pools; W ~ N(0, 0.01), biases 0."""
    windows = [(7, 2, 1), (3, 2, 1), (5, 2, 0), (3, 2, 1), (3, 2, 0)]
    height, width = size_after(shape.height, *windows), size_after(shape.width, *windows)
    network = nn.Sequential(
        *(nn.Conv2d(shape.channels, 96, 7, 2, 1), parts.activation(96), nn.MaxPool2d(3, 2, 1), parts.norm(96)),
        *(nn.Conv2d(96, 256, 5, 2), parts.activation(256), nn.MaxPool2d(3, 2, 1), parts.norm(256)),
        *(nn.Conv2d(256, 384, 3, padding=1), parts.activation(384)),
        *(nn.Conv2d(384, 384, 3, padding=1), parts.activation(384)),
        *(nn.Conv2d(384, 256, 3, padding=1), parts.activation(256), nn.MaxPool2d(3, 2)),
        *_hidden_layers(256 * height * width, classes, parts, dropout),
    )
    _initialize_narrowly(network)
    return network


def nin(shape: ImageShape, classes: int, parts: Layers, dropout: float) -> nn.Module:
    """(B, C, H, W) -> (B, K), of Lin et al. (2013) for photos; He initialisation. The logits are the means of maps
    without the ReLU that follows them in the authors' code: there, the first steps leave every map at 0 for good."""
    network = nn.Sequential(
        *(*_perceptron(shape.channels, (96, 96, 96), 11, 4, 0, parts), nn.MaxPool2d(3, 2)),
        *(*_perceptron(96, (256, 256, 256), 5, 1, 2, parts), nn.MaxPool2d(3, 2)),
        *(*_perceptron(256, (384, 384, 384), 3, 1, 1, parts), nn.MaxPool2d(3, 2), nn.Dropout(dropout)),
        *_perceptron(384, (classes, classes, classes), 3, 1, 1, parts)[:-1],
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    return he_initialize(network, "fan_in")


def nin_cifar(shape: ImageShape, classes: int, parts: Layers, dropout: float) -> nn.Module:
    """(B, C, H, W) -> (B, K), of Lin et al. (2013) for small images: 32 pixels become 16 and 8; He initialisation.

    As in `nin`, no ReLU follows the last maps.
    """

    def pool() -> list[nn.Module]:
        return [nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(dropout)]

    network = nn.Sequential(
        *(*_perceptron(shape.channels, (192, 160, 96), 5, 1, 2, parts), *pool()),
        *(*_perceptron(96, (192, 192, 192), 5, 1, 2, parts), *pool()),
        *_perceptron(192, (192, 192, classes), 3, 1, 1, parts)[:-1],
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    return he_initialize(network, "fan_in")


def vgg_cifar(
    convolutions: tuple[int, ...], shape: ImageShape, classes: int, parts: Layers, dropout: float | None
) -> nn.Module:
    """(B, C, H, W) -> (B, K): per stage as many 3x3 convolutions as `convolutions` says, each with norm, activation
    and, but for the last, dropout; a 2x2 pool; then a hidden layer of 512 units. He initialisation.
    """
    first, later, dense = (0.3, 0.4, 0.5) if dropout is None else (dropout, dropout, dropout)
    layers: list[nn.Module] = []
    channels = shape.channels
    for stage, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), convolutions, strict=True)):
        for index in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), parts.norm(width), parts.activation(width)]
            channels = width
            if index < depth - 1:
                layers.append(nn.Dropout(later if stage else first))
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    pixels = -(-shape.height // 32) * -(-shape.width // 32)
    layers += [nn.Dropout(dense), nn.Flatten(), nn.Linear(512 * pixels, 512), nn.Unflatten(1, (512, 1, 1))]
    layers += [
        parts.norm_of_vectors(512),
        parts.activation(512),
        nn.Dropout(dense),
        nn.Flatten(),
        nn.Linear(512, classes),
    ]
    return he_initialize(nn.Sequential(*layers))


def _hidden_layers(features: int, classes: int, parts: Layers, dropout: float) -> list[nn.Module]:
    """Two layers of 4096 units with dropout after each, and the output layer."""
    return [
        nn.Flatten(),
        *(nn.Linear(features, 4096), parts.vector_activation(4096), nn.Dropout(dropout)),
        *(nn.Linear(4096, 4096), parts.vector_activation(4096), nn.Dropout(dropout)),
        nn.Linear(4096, classes),
    ]


def _perceptron(
    channels: int, widths: tuple[int, ...], kernel: int, stride: int, padding: int, parts: Layers
) -> list[nn.Module]:
    """A convolution and two of 1x1, each with its activation."""
    layers = [*parts.convolution(channels, widths[0], kernel, stride, padding)]
    for before, width in pairwise(widths):
        layers += parts.convolution(before, width, 1)
    return layers


def _initialize_narrowly(network: nn.Sequential) -> tuple[list[nn.Conv2d], list[nn.Linear]]:
    """Weights ~ N(0, 0.01), biases 0. Returns the convolutions and the affine layers."""
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    affine = [layer for layer in network if isinstance(layer, nn.Linear)]
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
    return convolutions, affine
