"""Our own networks: one contract test over the catalogue, then what is particular to each."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from rationing import except_for, only
from torch import nn

from dltrain.config import ConfigError
from dltrain.models import Model
from dltrain.models.libraries import LibraryModel, TimmModel, TorchvisionModel, table
from dltrain.models.sequential import Sequential
from dltrain.tasks.outputs import Logits
from dltrain.testing import ModelContract, ModelSizeContract
from dltrain.testing.models import image_shape

OWN = [
    entry
    for entry in Model.catalogue
    if entry.__module__.startswith("dltrain.models") and entry not in (TimmModel, TorchvisionModel, Sequential)
]
NATIVE = [name for entry in OWN for name in entry.names()]


def fewest(entry: type[Model]) -> str:
    """The network with the fewest parameters, that stands for its class."""
    return min(entry.parameters, key=lambda fact: entry.parameters[fact])[0]


UNTRAINED = next(name for name, tags in table("timm").items() if not tags)


def build(value: Any, shape: str = "3x32x32", classes: int = 10) -> nn.Module:
    choice = Model.parse(value)
    assert isinstance(choice, Model)
    torch.manual_seed(0)
    return choice.make(image_shape(shape), Logits(classes))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def message(value: Any, shape: str = "3x32x32") -> str:
    with pytest.raises(ConfigError) as raised:
        build(value, shape, 7)
    return str(raised.value)


# -- the contract of our own networks


class TestSizes(ModelSizeContract):
    names = only(sorted({fewest(entry) for entry in OWN})[::2], NATIVE)

    @pytest.fixture(autouse=True)
    def only_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """That networks take their images is found by the other contract."""
        monkeypatch.setattr("dltrain.models.impl.fitting.refusal", lambda *_: None)


class TestModels(ModelContract):
    names = except_for(
        {
            "resnet50",
            "densenet_bc_100_12",
            "preact_resnet164",
            "resnext29_8x64d",
            "nasnet_mobile",
            "inception_resnet_v1",
        },
        ["resnet50", *(fewest(entry) for entry in OWN if not issubclass(entry, LibraryModel))],
    )
    shapes = {"resnet50": "3x32x32"}


@pytest.mark.parametrize("name", ["softmax_regression", "mlp", "convnet", "lenet5", "lenet5_modern", "resnet20"])
@pytest.mark.parametrize("shape", ["1x28x28", "2x17x40"])
def test_model_takes_any_channels_and_sizes_and_exports(name: str, shape: str) -> None:
    network = build(name, shape, 3).eval()
    images = torch.randn(2, *map(int, shape.split("x")))
    exported = torch.export.export(network, (images,), strict=False).module()
    torch.testing.assert_close(exported(images), network(images))


def test_softmax_regression_starts_at_the_entropy_of_a_guess() -> None:
    logits = build("softmax_regression", "1x28x28")(torch.randn(5, 1, 28, 28))
    assert nn.functional.cross_entropy(logits, torch.arange(5)).item() == pytest.approx(math.log(10))


def test_lenet5_is_sigmoid_and_average_pooling() -> None:
    kinds = Counter(type(layer).__name__ for layer in build("lenet5", "1x28x28"))  # type: ignore[arg-type]
    assert kinds == {"Conv2d": 2, "AvgPool2d": 2, "Sigmoid": 4, "Linear": 3, "Flatten": 1}
    kinds = Counter(type(layer).__name__ for layer in build("lenet5_modern", "1x28x28"))  # type: ignore[arg-type]
    assert kinds == {"Conv2d": 2, "MaxPool2d": 2, "ReLU": 4, "Linear": 3, "Flatten": 1}


@pytest.mark.parametrize(("name", "pools"), [("lenet5_modern", 2), ("convnet", 3)])
def test_a_max_pool_in_front_of_its_relu_changes_no_bit(name: str, pools: int) -> None:
    ours = build(name)
    assert isinstance(ours, nn.Sequential)
    pairs = [place for place in range(len(ours)) if isinstance(ours[place], nn.MaxPool2d)]
    assert len(pairs) == pools and all(isinstance(ours[place + 1], nn.ReLU) for place in pairs)
    written = copy.deepcopy(ours)
    for place in pairs:
        written[place], written[place + 1] = written[place + 1], written[place]
    images = torch.randn(16, 3, 32, 32)
    images[0] = 0  # maps of equal values, and of none above 0
    for network in (ours, written):
        nn.functional.cross_entropy(network(images), torch.arange(16) % 10).backward()
    assert torch.equal(ours(images), written(images))
    for one, other in zip(ours.parameters(), written.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad)
    kept = build({"name": name, "activation": "gelu"})
    assert isinstance(kept, nn.Sequential) and isinstance(kept[pairs[0]], nn.GELU)


@pytest.mark.parametrize("whole", [False, True])
def test_lenets_pools_give_torchs_numbers_in_bfloat16(whole: bool) -> None:
    """Whether it is a type to compute in or the weights' own."""
    ours = build("lenet5_modern")
    assert isinstance(ours, nn.Sequential)
    plain = copy.deepcopy(ours)
    plain[1], plain[4] = nn.MaxPool2d(2), nn.MaxPool2d(2)
    images = torch.randn(16, 3, 32, 32)
    exact = copy.deepcopy(ours).double()
    torch.testing.assert_close(exact[:2](images.double()), plain[:2].double()(images.double()), rtol=0, atol=0)
    plain.float()
    results = []
    for network in (ours, plain):
        network, batch = (network.bfloat16(), images.bfloat16()) if whole else (network, images)
        with torch.autocast("cpu", torch.bfloat16, enabled=not whole):
            logits = network(batch)
        assert logits.dtype == torch.bfloat16
        nn.functional.cross_entropy(logits.float(), torch.arange(16) % 10).backward()
        results.append([logits, *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_activation_and_norm_of_our_networks_can_be_set() -> None:
    network = build({"name": "resnet20", "activation": "mish", "norm": {"name": "group_norm", "groups": 8}})
    kinds = Counter(type(layer).__name__ for layer in network.modules())
    assert kinds["Mish"] == kinds["GroupNorm"] == 19 and not kinds["ReLU"] and not kinds["BatchNorm2d"]
    network = build({"name": "mlp", "hidden": [8, 6], "activation": "prelu", "norm": "batch_norm", "dropout": 0.2})
    assert network(torch.randn(4, 3, 32, 32)).shape == (4, 10)
    assert count(network) == 3072 * 8 + 8 * 6 + 6 * 10 + 10 + 3 * (8 + 6)
    network = build({"name": "convnet", "widths": [4, 8], "kernel": 5, "depth": 2, "norm": None, "pooling": "average"})
    assert count(network) == 25 * (3 * 4 + 4 * 4 + 4 * 8 + 8 * 8) + 2 * (4 + 8) + 8 * 10 + 10


def test_resnet_shortcut_is_subsampling_and_zeros() -> None:
    from dltrain.models.impl.parts import Layers
    from dltrain.models.impl.resnet import BasicBlock

    block = BasicBlock(2, 5, 2, Layers(lambda _: nn.Identity(), lambda _: nn.Identity(), None, shifts=False))
    images = torch.randn(1, 2, 7, 7)
    out = block.shortcut(images)
    assert torch.equal(out[:, :2], images[:, :, ::2, ::2]) and not out[:, 2:].any() and out.shape[1] == 5


def test_convnet_learns() -> None:
    labels = torch.arange(64) % 4
    rows = nn.functional.one_hot(labels, 4).float().repeat_interleave(2, 1)  # class k: rows 2k and 2k + 1 are bright
    images = rows[:, None, :, None] + torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = build({"name": "convnet", "widths": [8, 16]}, "1x8x8", 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(15):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


# -- resnet18 and its stem


def test_resnet18_has_torchvisions_logits() -> None:
    from torchvision.models import resnet18

    reference = resnet18(num_classes=10).eval()
    network = build({"name": "resnet18", "stem": "large"}).eval()
    network.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images), reference(images))


@pytest.mark.parametrize(
    ("shape", "stem", "size"),
    [
        ("3x32x32", "auto", 32),
        ("3x64x64", "auto", 64),
        ("3x96x96", "auto", 24),
        ("1x32x32", "large", 8),
        ("1x96x96", "small", 96),
    ],
)
def test_stem_decides_the_size_of_the_first_maps(shape: str, stem: str, size: int) -> None:
    network = build({"name": "resnet18", "stem": stem}, shape).eval()
    sizes: list[int] = []
    network.get_submodule("layer1").register_forward_hook(lambda *args: sizes.append(args[2].shape[-1]))
    with torch.no_grad():
        network(torch.zeros(1, *map(int, shape.split("x"))))
    assert sizes == [size]


# -- options that make no sense


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"name": "resnet18", "stem": "small", "pretrained": True}, "stem", "large stem"),
        ({"name": "convnet", "kernel": 4}, "kernel", "must be odd"),
        ({"name": "mlp", "norm": "instance_norm"}, "norm", "normalises within a map"),
        ({"name": "timm/resnet50.a1_in1k"}, "name", "set `pretrained: true`"),
        ({"name": f"timm/{UNTRAINED}", "pretrained": True}, "pretrained", "no pretrained weights"),
    ],
)
def test_options_that_do_not_go_together_are_refused(value: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as raised:
        Model.parse(value)
    assert raised.value.errors()[0]["ctx"]["field"] == field


def test_images_that_are_too_small_are_refused() -> None:
    assert "the least size that it takes is 12x12: set `data.size: 12` or more" in message("lenet5", "1x8x8")
    norm = {"name": "convnet", "norm": "instance_norm", "widths": [4, 4, 4, 4]}
    assert "`instance_norm` cannot normalise maps of 1x1" in message(norm, "1x8x8")
