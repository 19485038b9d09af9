"""Our own networks against their papers: sizes of maps, formulas of blocks, exchange of activations and norms."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from rationing import except_for
from torch import Tensor, nn

from dltrain.config import ConfigError
from dltrain.config.section import is_name_enough
from dltrain.data.types import ImageShape, Vector
from dltrain.models import Model
from dltrain.models.native import NativeModel
from dltrain.models.published import PublishedModel
from dltrain.tasks.outputs import Logits

NATIVE = [entry for entry in Model.catalogue if issubclass(entry, NativeModel) and is_name_enough(entry)]
LARGE = {
    Model.lookup(name) for name in ("nasnet_mobile", "inception_resnet_v1", "preact_resnet164", "densenet_bc_100_12")
}


def build(value: Any, shape: str = "3x32x32", classes: int = 10) -> nn.Module:
    choice = Model.parse(value)
    assert isinstance(choice, Model)
    torch.manual_seed(0)
    return choice.make(ImageShape(*map(int, shape.split("x"))), Logits(classes))


def on_meta(value: Any, shape: str = "3x224x224", classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return build(value, shape, classes)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def sizes(network: nn.Module, kinds: tuple[type[nn.Module], ...], shape: str) -> list[int]:
    """The heights of what the layers of `kinds` put out, without repetitions."""
    found: list[int] = []

    def record(module: nn.Module, inputs: Any, out: Tensor) -> None:
        if out.dim() == 4 and out.shape[-1] not in found[-1:]:
            found.append(out.shape[-1])

    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(record)
    network(torch.empty(1, *map(int, shape.split("x")), device="meta"))
    return found


# -- the exchange of activations and norms, in every network


@pytest.mark.parametrize("entry", except_for(LARGE, NATIVE))
def test_activation_and_norm_are_exchanged_everywhere(entry: type[NativeModel]) -> None:
    name, shape, classes = min(entry.parameters, key=lambda fact: entry.parameters[fact])
    published = on_meta(name, shape, classes)
    network = on_meta({"name": name, "activation": "silu", "norm": "group_norm"}, shape, classes)
    before, after = (Counter(type(module).__name__ for module in n.modules()) for n in (published, network))
    old = type(entry.published_activation.build(8)).__name__
    assert not any(after[kind] for kind in (old, "BatchNorm2d", "LocalResponseNorm"))
    assert after["SiLU"] == before[old] > 0
    norms = before["BatchNorm2d"] or before["LocalResponseNorm"]
    assert after["GroupNorm"] == norms or (after["GroupNorm"] > norms and entry.published_norm is None)
    assert network(torch.empty(2, *map(int, shape.split("x")), device="meta")).shape == (2, classes)


@pytest.mark.parametrize("value", [{"activation": "prelu"}, {"norm": "layer_norm"}], ids=str)
def test_exchanged_parts_train(value: dict[str, Any]) -> None:
    for name in ("nin_cifar", "densenet_small", "shufflenet_v1"):
        network = build({"name": name, **value})
        network(torch.randn(2, 3, 32, 32)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_images_that_are_too_small_are_refused_with_the_least_size() -> None:
    for name, least in (("alexnet", 63), ("zfnet", 53), ("nin", 67), ("densenet_small", 29)):
        with pytest.raises(ConfigError) as raised:
            build(name, "3x16x16")
        assert f"the least size that it takes is {least}x{least}: set `data.size: {least}`" in str(raised.value)
        assert on_meta(name, f"1x{least}x{least + 9}", 3)
    with pytest.raises(ConfigError, match="cannot take images of 3x32x32"):
        build({"name": "densenet_small", "norm": "instance_norm"})


# -- AlexNet to VGG


def test_alexnet_has_the_sizes_and_the_start_of_the_paper() -> None:
    assert sizes(on_meta("alexnet"), (nn.Conv2d, nn.MaxPool2d), "3x224x224") == [55, 27, 13, 6]
    network = build("alexnet", "3x67x67")
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]  # type: ignore[union-attr]
    assert [layer.bias.mean().item() for layer in layers] == [0, 1, 0, 1, 1, 1, 1, 0]  # type: ignore[union-attr]
    assert layers[5].weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert [layer.groups for layer in layers if isinstance(layer, nn.Conv2d)] == [1, 2, 1, 2, 2]
    assert sizes(on_meta("zfnet"), (nn.Conv2d, nn.MaxPool2d), "3x224x224") == [110, 55, 26, 13, 6]


def test_network_in_network_for_photos_and_small_images() -> None:
    assert sizes(on_meta("nin"), (nn.Conv2d, nn.MaxPool2d), "3x224x224") == [54, 26, 12, 5]
    assert sizes(on_meta("nin_cifar", "3x32x32"), (nn.Conv2d, nn.MaxPool2d), "3x32x32") == [32, 16, 8]


def test_vgg_for_small_images_has_the_published_dropout() -> None:
    network = build("vgg16_cifar")
    assert Counter(m.p for m in network.modules() if isinstance(m, nn.Dropout)) == {0.3: 1, 0.4: 7, 0.5: 2}
    network = build({"name": "vgg11_cifar", "dropout": 0.1})
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert on_meta("vgg11_cifar", "1x28x45", 7)


# -- residual and dense


def test_preactivation_adds_its_input_or_what_replaces_it() -> None:
    from dltrain.models.impl.parts import Layers
    from dltrain.models.impl.residual import PreActivationBlock

    parts = Layers(lambda _: nn.ReLU(), lambda _: nn.ReLU(), None, shifts=False)
    images = torch.randn(2, 4, 6, 6)

    def block(stride: int, projection: bool) -> tuple[PreActivationBlock, Tensor]:
        made = PreActivationBlock(4, [(7, 3), (7, 3)] if stride > 1 else [(4, 3), (4, 3)], stride, projection, parts)
        nn.init.zeros_(made.residual[-1].weight)  # type: ignore[arg-type]
        return made, made(images)

    assert torch.equal(block(1, True)[1], images), "no activation after the addition"
    free = block(2, False)[1]
    assert torch.equal(free[:, :4], images[:, :, ::2, ::2]) and not free[:, 4:].any()
    made, out = block(2, True)
    assert made.projection is not None
    torch.testing.assert_close(out, made.projection(images.relu()))


def test_wide_resnets_are_as_large_as_the_paper_says() -> None:
    millions = {"16_8": 11.0, "28_10": 36.5, "40_1": 0.6, "40_2": 2.2, "40_4": 8.9}  # Table 4
    for name, expected in millions.items():
        assert count(on_meta(f"wide_resnet_{name}", "3x32x32")) / 1e6 == pytest.approx(expected, abs=0.05)
    dropout = [m.p for m in build("wide_resnet_40_1").modules() if isinstance(m, nn.Dropout)]
    assert dropout == [0.3] * 18


def test_densenet_small_ends_in_248_maps() -> None:
    network = on_meta("densenet_small", "1x96x96")
    assert [m.in_features for m in network.modules() if isinstance(m, nn.Linear)] == [248]
    assert sizes(network, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d), "1x96x96") == [48, 24, 12, 6, 3]


@pytest.mark.parametrize("name", ["densenet_40_12", "densenet_bc_100_12"])
def test_densenet_halves_twice(name: str) -> None:
    network = on_meta(name, "3x32x32")
    assert sizes(network, (nn.Conv2d, nn.AvgPool2d), "3x32x32") == [32, 16, 8]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == int(name.split("_")[-2])  # and the last layer


# -- GoogLeNet and ShuffleNet


def test_googlenet_has_5x5_convolutions_and_two_forms() -> None:
    network = on_meta("googlenet")
    kernels = Counter(m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d))
    assert kernels == {(7, 7): 1, (5, 5): 9, (3, 3): 10, (1, 1): 37}
    assert sizes(network, (nn.Conv2d, nn.MaxPool2d), "3x224x224") == [112, 56, 28, 14, 7]
    normed = on_meta({"name": "googlenet", "norm": "batch_norm"}, classes=1000)
    assert count(normed) == 7_005_832
    assert not any(isinstance(m, nn.LocalResponseNorm) for m in normed.modules())


@pytest.mark.parametrize(("groups", "expected"), [(1, 1_531_936), (3, 1_865_728), (8, 2_434_768)])
def test_shufflenet_takes_other_groups(groups: int, expected: int) -> None:
    assert count(on_meta({"name": "shufflenet_v1", "groups": groups}, classes=1000)) == expected


# -- networks of libraries under published names


def test_published_names_build_the_librarys_network() -> None:
    from torchvision.models import squeezenet1_1

    reference = squeezenet1_1(num_classes=10).eval()
    network = build({"name": "squeezenet1_1", "dropout": 0.2, "stem": "large"}).eval()
    network.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), reference(images))
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.2]
    stochastic = on_meta({"name": "efficientnet_b0", "drop_path": 0.4}, "1x64x64")
    assert max(getattr(m, "p", 0) for m in stochastic.modules()) == pytest.approx(0.4)


def test_errors_and_weights_of_published_names_say_that_name() -> None:
    for name in ("squeezenet1_0", "vgg11"):
        with pytest.raises(ConfigError, match=f"model `{name}` takes no `drop_path`"):
            on_meta({"name": name, "drop_path": 0.1})
    for name, size in (("xception", 299), ("vgg16", 224)):
        choice = Model.parse({"name": name, "pretrained": True})
        assert isinstance(choice, PublishedModel)
        preprocessing = choice.preprocessing()
        assert preprocessing is not None and preprocessing.size == (size, size)


def test_fully_connected_networks_take_rows_of_numbers_and_others_say_that_they_take_images() -> None:
    for name in ("mlp", "softmax_regression"):
        network = Model.parse(name).make(Vector(5), Logits(3))  # type: ignore[attr-defined]
        assert network(Vector(5).example(2)).shape == (2, 3)
    for name in ("convnet", "airbench94"):
        with pytest.raises(ConfigError, match=f"model `{name}` takes images, and the data gives vectors of 5 numbers"):
            Model.parse(name).make(Vector(5), Logits(3))  # type: ignore[attr-defined]
