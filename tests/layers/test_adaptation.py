"""Changing the parts of any network: activation, norm, attention, stem, what is dropped; and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rationing import except_for
from torch import nn

from dltrain import Experiment
from dltrain import build as experiment_build
from dltrain.config import ConfigError
from dltrain.data.types import ImageShape
from dltrain.layers.impl.dropout import DropBlock, DropConnectLinear
from dltrain.models import Model
from dltrain.tasks.outputs import Logits

LARGE = {"senet154", "nasnet_large", "inception_resnet_v2", "inception_v3", "densenet121", "resnext50_32x4d"}
FAMILIES = {
    # network: activations exchanged, those that gates keep, norms, blocks with attention, of them on a branch
    "resnet18": (17, 0, 20, 8, 8),
    "torchvision/resnet50": (49, 0, 53, 16, 16),
    "timm/resnet18": (17, 0, 20, 8, 8),
    "alexnet_owt": (7, 0, 0, 3, 0),
    "vgg11_bn": (10, 0, 8, 5, 0),
    "preact_resnet18": (17, 0, 17, 8, 8),
    "resnext50_32x4d": (49, 0, 53, 16, 16),
    "wide_resnet50_2": (49, 0, 53, 16, 16),
    "densenet121": (121, 0, 121, 58, 0),
    "inception_v3": (94, 0, 94, 11, 0),
    "inception_resnet_v2": (243, 0, 204, 43, 40),
    "xception": (35, 0, 40, 12, 12),
    "se_resnet50": (49, 16, 53, 16, 16),
    "senet154": (153, 50, 157, 50, 50),
    "squeezenet1_1": (25, 0, 0, 8, 0),
    "mobilenet_v1": (27, 0, 27, 13, 0),
    "mobilenet_v2": (35, 0, 52, 17, 10),
    "mobilenet_v3_small": (24, 9, 34, 11, 6),
    "shufflenet_v2_x0_5": (37, 0, 56, 16, 0),
    "ghostnet": (35, 7, 80, 16, 16),
    "nasnet_large": (264, 0, 264, 22, 0),
    "efficientnet_b0": (33, 16, 49, 16, 9),
    "timm/regnetx_002": (40, 0, 44, 13, 13),
    "resnet20": (19, 0, 19, 9, 9),
}


def build(value: Any, size: int = 32, classes: int = 10, channels: int = 3, device: str = "cpu") -> nn.Module:
    choice = Model.parse(value)
    assert isinstance(choice, Model)
    torch.manual_seed(0)
    with torch.device(device):
        return choice.make(ImageShape(channels, size, size), Logits(classes))


def report(network: nn.Module) -> dict[str, Any]:
    return network.adaptation.to_dict()  # type: ignore[operator, no-any-return, union-attr]


def refused(value: Any, size: int = 32) -> str:
    with pytest.raises(ConfigError) as raised:
        build(value, size, device="meta")
    return str(raised.value)


@pytest.mark.parametrize("name", except_for(LARGE, FAMILIES))
def test_the_places_of_each_family(name: str) -> None:
    activations, kept, norms, blocks, branches = FAMILIES[name]
    parts = {"activation": "mish", "attention": "eca"} | ({"norm": "group_norm"} if norms else {})
    network = build({"name": name, **parts}, 96, device="cpu" if "resnext" in name else "meta")
    found = report(network)
    assert found["activation"]["count"] == activations
    assert found["activation"]["notes"] == ([f"{kept} inside gates are as published"] if kept else [])
    assert found.get("norm", {"count": 0})["count"] == norms
    assert found["attention"]["count"] == blocks
    assert found["attention"]["notes"] == ([f"{branches} of them on a residual branch"] if branches else [])
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("Mish") == activations and kinds.count("GroupNorm") == norms
    assert kinds.count("EfficientChannelAttention") == blocks
    assert not any("BatchNorm" in kind for kind in kinds)


@pytest.mark.parametrize(
    "name",
    except_for(
        {"torchvision/densenet121"},
        ["resnet18", "torchvision/densenet121", "inception_v3", "mobilenet_v2", "timm/regnetx_002", "vgg16_cifar"],
    ),
)
def test_the_published_parts_change_nothing(name: str) -> None:
    published = {"activation": "relu6" if name == "mobilenet_v2" else "relu"}
    if name != "inception_v3":  # which adds 0.001 to the variance
        published["norm"] = "batch_norm"
    size = 75 if name == "inception_v3" else 64
    network, same = build(name, size).eval(), build({"name": name, **published}, size).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(same(images), network(images), rtol=1e-4, atol=1e-5)
    assert report(same)["activation"]["count"] > 5


def test_learned_activations_get_their_channels() -> None:
    network = build({"name": "mobilenet_v3_small", "activation": "prelu"}, 64)
    widths = [module.num_parameters for module in network.modules() if isinstance(module, nn.PReLU)]
    assert widths[0] == 16 and widths[-1] == 1024 and len(widths) == 24
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_gains_and_offsets_of_a_norm_are_kept() -> None:
    network = build({"name": "timm/resnet18", "norm": "group_norm"}, 64)  # timm starts each branch with a gain of 0
    gains = [bool(module.weight.any()) for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert gains.count(False) == 8 and gains.count(True) == 12


# -- stems


@pytest.mark.parametrize(
    "name",
    except_for({"densenet121"}, ["resnet18", "densenet121", "shufflenet_v2_x0_5", "xception", "squeezenet1_1"]),
)
def test_small_images_get_a_small_stem(name: str) -> None:
    small, large = build(name, 32), build({"name": name, "stem": "large"}, 96)
    first = [next(m for m in n.modules() if isinstance(m, nn.Conv2d)) for n in (small, large)]
    assert (first[0].kernel_size, first[0].stride, first[0].padding) == ((3, 3), (1, 1), (1, 1))
    assert first[1].stride == (2, 2) and first[0].out_channels == first[1].out_channels
    spread = [conv.weight.std().item() * conv.kernel_size[0] for conv in first]
    assert spread[0] == pytest.approx(spread[1], rel=0.2)
    pools = [sum(isinstance(m, nn.MaxPool2d) for m in n.modules()) for n in (small, large)]
    assert pools[0] == pools[1] - (name != "xception")
    automatic = build(name, 65, device="meta")  # `auto` is large above 64 pixels
    assert automatic.state_dict().keys() == large.state_dict().keys()


def test_a_stem_that_cannot_be_small_is_refused() -> None:
    text = "takes no `stem: small`: its first convolution has no stride to lose"
    assert text in refused({"name": "vgg11", "stem": "small"}, 64)
    assert text in refused({"name": "timm/vit_tiny_patch16_224", "stem": "small"}, 224)
    build("vgg11", 32, device="meta")


# -- attention


@pytest.mark.parametrize("position", ["branch", "pre", "post"])
def test_the_position_of_attention(position: str) -> None:
    network = build({"name": "resnet20", "attention": {"name": "squeeze_excitation", "position": position}})
    plain = build("resnet20")
    block, original = network.get_submodule("3"), plain.get_submodule("3")
    gates = [m for m in network.modules() if type(m).__name__ == "SqueezeExcitation"]
    assert len(gates) == 9
    for gate in gates:
        for parameter in gate.parameters():
            nn.init.zeros_(parameter)  # then the gate halves its input
    original.load_state_dict({k.replace("inner.", ""): v for k, v in block.state_dict().items() if "extra." not in k})
    maps = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        branch = original.norm2(original.convolution2(F.relu(original.norm1(original.convolution1(maps)))))  # type: ignore[operator]
        expected = {
            "branch": lambda: F.relu(branch / 2 + maps),
            "pre": lambda: original(maps / 2),
            "post": lambda: original(maps) / 2,
        }[position]()
        torch.testing.assert_close(block(maps), expected)


# -- what is dropped


def test_paths_are_dropped_at_rates_that_grow() -> None:
    network = build({"name": "resnet18", "drop_path": 0.4}, device="meta")
    rates = [module.p for module in network.modules() if type(module).__name__ == "StochasticDepth"]
    assert rates == pytest.approx([0.05 * index for index in range(1, 9)])
    network = build({"name": "efficientnet_b0", "drop_path": 0.4}, 64, device="meta")  # which has its own
    assert report(network)["drop_path"]["count"] > 0


def test_drop_block_zeroes_squares_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropBlock(rate=0.1, size=7, ramp=0)
    maps = torch.ones(64, 16, 14, 14)
    out = layer(maps)
    assert (out == 0).float().mean() == pytest.approx(0.1, abs=0.03)  # squares overlap
    assert out.mean() == pytest.approx(1, abs=1e-5)
    assert torch.equal(layer.eval()(maps), maps)
    one = DropBlock(rate=0.3, size=1, ramp=0)(maps)  # then it is dropout
    assert (one == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    dropped = (DropBlock(rate=0.02, size=5, ramp=0)(maps[:4]) == 0).float()
    eroded = -F.max_pool2d(-dropped, 5, 1)
    holes = F.max_pool2d(F.pad(eroded, (4, 4, 4, 4)), 5, 1)  # each zero lies in a whole square
    assert torch.equal(holes, dropped) and dropped.any()
    assert DropBlock(0.5, 7, 0)(torch.ones(2, 1, 4, 4)).shape == (2, 1, 4, 4)


def test_the_rate_of_drop_block_grows_with_the_steps() -> None:
    layer, maps = DropBlock(rate=0.5, size=1, ramp=10), torch.ones(32, 8, 10, 10)
    for done, share in ((0, 0.05), (0, 0.05), (4, 0.25), (9, 0.5), (99, 0.5)):
        layer.steps.fill_(done)
        assert (layer(maps) == 0).float().mean().item() == pytest.approx(share, abs=0.01)


def test_drop_connect_masks_weights() -> None:
    network = build({"name": "lenet5", "drop_connect": 0.5}, 28, channels=1)
    layers = [module for module in network.modules() if isinstance(module, DropConnectLinear)]
    assert len(layers) == 3 and network.state_dict().keys() == build("lenet5", 28, channels=1).state_dict().keys()
    layer, inputs = layers[0], torch.eye(layers[0].in_features)
    torch.manual_seed(0)
    ratio = (layer(inputs) - layer.bias) / (layer.eval()(inputs) - layer.bias)
    assert set(ratio.round(decimals=2).abs().unique().tolist()) == {0.0, 2.0}
    assert (ratio == 0).float().mean() == pytest.approx(0.5, abs=0.02)


def test_regularisers_go_together_and_rest_in_evaluation() -> None:
    rates = dict.fromkeys(("dropout", "drop_path", "spatial_dropout", "drop_connect"), 0.5)
    dropped = {**rates, "drop_block": {"rate": 0.2}}
    network = build({"name": "resnet18", "attention": "cbam", **dropped})
    assert set(report(network)) == {*dropped, "attention"}
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


# -- what cannot be done


def test_what_a_network_cannot_take_is_an_error_with_the_reason() -> None:
    assert "layer1.0.relu is called with 64, 256 channels, and prelu learns for each channel" in refused(
        {"name": "timm/legacy_seresnet50", "activation": "prelu"}, 64
    )
    assert "the network calls functions in conv1 and elsewhere, and no modules to exchange" in refused(
        {"name": "torchvision/googlenet", "activation": "mish"}, 64
    )
    assert "channels come last at blocks.0.mlp.act" in refused(
        {"name": "timm/vit_tiny_patch16_224", "activation": "prelu"}, 224
    )
    assert "channels come last at" in refused({"name": "torchvision/convnext_tiny", "activation": "prelu"}, 64)
    assert "it has no norm of maps to exchange" in refused({"name": "vgg11", "norm": "group_norm"}, 64)
    text = refused({"name": "mobilenet_v2", "norm": "instance_norm"}, 16)
    assert "instance_norm cannot normalise maps of 1x1" in text and "use larger images" in text
    assert "it has neither blocks" in refused({"name": "timm/vit_tiny_patch16_224", "attention": "eca"}, 224)
    assert "it has no residual branches to skip" in refused({"name": "vgg11", "drop_path": 0.1}, 64)
    assert "its blocks take lists of maps" in refused(
        {"name": "densenet121", "attention": {"name": "eca", "position": "pre"}}
    )


def test_an_activation_without_parameters_may_be_shared() -> None:
    network = build({"name": "timm/legacy_seresnet50", "activation": "mish"}, 64, device="meta")
    assert report(network)["activation"]["count"] == 17
    network = build({"name": "timm/vit_tiny_patch16_224", "activation": "relu"}, 224, device="meta")
    assert report(network)["activation"]["count"] == 12


# -- norms of layers


def test_weight_norm_keeps_the_outputs_and_adds_a_length_for_each() -> None:
    network = build({"name": "resnet20", "norm": "weight_norm"})
    convolution = network.get_submodule("3").get_submodule("convolution1")
    parameters = dict(convolution.named_parameters())
    length, direction = (parameters[f"parametrizations.weight.original{index}"] for index in (0, 1))
    torch.testing.assert_close(length.flatten(), direction.flatten(1).norm(dim=1))
    torch.testing.assert_close(convolution.weight, direction)
    assert length.numel() == 16 and parameters["bias"].shape == (16,)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert direction.grad is not None
    torch.testing.assert_close((direction.grad * direction).sum((1, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_cosine_norm_is_the_cosine(centered: bool, groups: int) -> None:
    from dltrain.layers.impl.weight_norms import CosineLayer

    plain = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups).double()
    layer = CosineLayer(plain, centered, scale=False, epsilon=1e-12)
    maps = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    patches = F.unfold(maps, 3, padding=1, stride=2).unflatten(1, (groups, -1))[:, :, None]  # (B, G, 1, I, P)
    weights = plain.weight.detach().flatten(1).unflatten(0, (groups, -1))[None, :, :, :, None]  # (1, G, O, I, 1)
    if centered:
        patches, weights = patches - patches.mean(3, keepdim=True), weights - weights.mean(3, keepdim=True)
    cosine = F.cosine_similarity(patches, weights.expand(2, -1, -1, -1, patches.shape[-1]), dim=3)
    torch.testing.assert_close(layer(maps), cosine.flatten(1, 2).unflatten(2, (4, 4)), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer(maps * 7), layer(maps))
    assert layer(maps).abs().max() <= 1
    linear = CosineLayer(nn.Linear(5, 3).double(), centered, scale=True, epsilon=1e-12)
    assert torch.autograd.gradcheck(linear, torch.randn(4, 5, dtype=torch.float64, requires_grad=True))
    assert sum(p.numel() for p in linear.parameters()) == 15 + 3


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "convnet", "mlp", "lenet5", "densenet_bc_100_12"])
@pytest.mark.parametrize("norm", ["weight_norm", "cosine_norm"])
def test_norms_of_layers_work_in_any_network(name: str, norm: str) -> None:
    network = build({"name": name, "norm": norm})
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("_WeightNorm" if norm == "weight_norm" else "CosineLayer") >= 1
    assert not any("BatchNorm" in kind for kind in kinds)


def test_activations_that_need_maps_on_vectors() -> None:
    network = build({"name": "alexnet_owt", "activation": "frelu"}, 64, device="meta")
    assert report(network)["activation"]["notes"] == ["2 of them, on vectors, are relu"]
    assert report(network)["activation"]["count"] == 7
    network = build({"name": "mobilenet_v3_small", "activation": "dynamic_relu_b"}, 64)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 10)


def test_the_error_stands_at_the_key_that_it_is_about() -> None:
    text = (
        "data: {name: synthetic, shape: [3, 32, 32]}\nmodel:\n"
        "  name: squeezenet1_1\n  activation: mish\n  norm: group_norm\n"
    )
    with pytest.raises(ConfigError) as raised:
        experiment_build(Experiment.parse(text), "cpu")
    assert "5 |   norm: group_norm\n   |         ^^^^^^^^^^" in str(raised.value)
