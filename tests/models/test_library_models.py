"""torchvision's and timm's networks by name: any channels and classes, pretrained weights, errors, the tables."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rationing import except_for
from torch import nn

from dltrain.config import ConfigError
from dltrain.data.types import ImageShape
from dltrain.models import Model
from dltrain.tasks.outputs import Logits

ROOT = Path(__file__).parents[2]


def build(value: Any, shape: str = "3x32x32", classes: int = 10) -> nn.Module:
    choice = Model.parse(value)
    assert isinstance(choice, Model)
    torch.manual_seed(0)
    return choice.make(image_shape(shape), Logits(classes))


def image_shape(text: str) -> ImageShape:
    channels, height, width = map(int, text.split("x"))
    return ImageShape(channels, height, width)


def message(value: Any, shape: str = "3x32x32") -> str:
    with pytest.raises(ConfigError) as raised:
        build(value, shape, 7)
    return str(raised.value)


@pytest.mark.parametrize(
    "value",
    except_for(
        ["torchvision/googlenet", "torchvision/vit_b_32"],
        [
            "torchvision/alexnet",
            "torchvision/googlenet",
            "torchvision/shufflenet_v2_x0_5",
            "torchvision/vit_b_32",
            {"name": "torchvision/mobilenet_v3_small", "dropout": 0.3},
            {"name": "torchvision/convnext_tiny", "drop_path": 0.3},
            "timm/test_resnet",
            {"name": "timm/test_efficientnet", "dropout": 0.3, "drop_path": 0.3},
            {"name": "timm/test_vit", "dropout": 0.3},
        ],
    ),
)
def test_library_model_takes_other_channels_classes_and_sizes(value: Any) -> None:
    network = build(value, "1x64x64", 7)
    assert network.training
    logits = network(torch.randn(2, 1, 64, 64))
    assert isinstance(logits, torch.Tensor) and logits.shape == (2, 7)
    logits.sum().backward()
    again = build(value, "1x64x64", 7)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    if isinstance(value, dict) and "dropout" in value:
        rates = {m.p for m in network.modules() if isinstance(m, nn.Dropout)} | {getattr(network, "drop_rate", None)}
        assert 0.3 in rates
    if isinstance(value, dict) and "drop_path" in value:
        rates = {getattr(m, "drop_prob", getattr(m, "p", 0)) or 0 for m in network.modules()}
        assert 0 < max(rates) <= 0.3


def test_a_new_first_convolution_keeps_the_variance_of_its_outputs() -> None:
    grey, colour = build("torchvision/resnet18", "1x64x64"), build("torchvision/resnet18", "3x64x64")
    with torch.no_grad():
        ratio = [n.get_submodule("conv1").weight.square().sum() for n in (grey, colour)]  # type: ignore[union-attr]
    assert (ratio[0] / ratio[1]).item() == pytest.approx(1, abs=0.1)


def test_images_that_are_too_small_are_refused_with_a_size_that_works() -> None:
    assert "the least size that it takes is 63x63: set `data.size: 63` or more" in message("torchvision/alexnet")
    assert "the least size that it takes is 17x17" in message("torchvision/squeezenet1_1", "1x8x8")
    assert build("torchvision/squeezenet1_1", "1x17x17", 2)
    assert "takes square images only, not 3x32x48" in message("torchvision/vit_b_16", "3x32x48")


@pytest.mark.slow
def test_what_takes_one_size_alone_says_which() -> None:
    assert "it takes 224x224, for instance: set `data.size: 224`" in message("torchvision/maxvit_t")
    assert "it takes 240x240, for instance" in message("timm/crossvit_tiny_240")


@pytest.mark.parametrize(
    ("name", "option"),
    [("torchvision/squeezenet1_1", "drop_connect"), ("torchvision/vgg11", "drop_path"), ("timm/vgg11", "norm")],
)
def test_an_option_that_the_network_lacks_is_an_error(name: str, option: str) -> None:
    value: Any = "group_norm" if option == "norm" else 0.1
    assert f"model `{name}` takes no `{option}`" in message({"name": name, option: value}, "3x64x64")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Empty caches for weights, and no network."""
    import huggingface_hub.constants

    def no_network(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path


def test_pretrained_without_a_network_says_where_the_file_belongs(hub: Path) -> None:
    text = message({"name": "torchvision/squeezenet1_1", "pretrained": True}, "3x64x64")
    assert "cannot download the pretrained weights of `torchvision/squeezenet1_1`" in text
    assert f"put the file `squeezenet1_1-b8a52dc0.pth` into {hub / 'torch' / 'checkpoints'}" in text
    text = message({"name": "timm/test_resnet.r160_in1k", "pretrained": True}, "3x64x64")
    assert "put the file `model.safetensors` into" in text
    assert "models--timm--test_resnet.r160_in1k" in text
    text = message({"name": "timm/legacy_seresnet18", "pretrained": True}, "3x64x64")
    assert f"into {hub / 'torch' / 'checkpoints'}" in text


@pytest.mark.parametrize("label", ["torchvision/squeezenet1_1", "resnet18"])
def test_torchvisions_pretrained_weights_are_adapted(hub: Path, label: str) -> None:
    from torchvision import models

    name = label.removeprefix("torchvision/")
    original = models.get_model(name).eval()
    checkpoints = hub / "torch" / "checkpoints"
    checkpoints.mkdir(parents=True)
    url = models.get_model_weights(name).DEFAULT.url
    torch.save(original.state_dict(), checkpoints / url.rsplit("/", 1)[-1])

    value = {"name": label, "pretrained": True}
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        whole = build(value, "3x64x64", 1000).eval()  # as many classes as the weights have: the head is kept
        expected = original(images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(whole(images.expand(-1, 3, -1, -1)), expected)
        grey = build(value, "1x64x64", 1000).eval()
        torch.testing.assert_close(grey(images), expected, rtol=1e-4, atol=1e-4)
        four = build(value, "4x64x64", 1000).eval()
        first = next(p for p in four.parameters() if p.ndim == 4)
        theirs = next(p for p in original.parameters() if p.ndim == 4)
        torch.testing.assert_close(first[:, 3], theirs[:, 0] * 0.75)
        adapted = build({**value, "activation": "relu"}, "3x64x64", 1000).eval()  # parts are exchanged afterwards
        torch.testing.assert_close(adapted(images.expand(-1, 3, -1, -1)), expected)
    seven = build(value, "3x64x64", 7)
    same = [torch.equal(a, b) for a, b in zip(seven.parameters(), original.parameters(), strict=True)]
    assert same[:-2] == [True] * (len(same) - 2) and same[-2:] == [False, False]


def test_timms_pretrained_weights_are_adapted(hub: Path) -> None:
    import timm
    from safetensors.torch import save_file

    original = timm.create_model("test_resnet").eval()
    repository = hub / "hf" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(original.state_dict(), str(repository / "snapshots" / ("0" * 40) / "model.safetensors"))

    for name in ("timm/test_resnet", "timm/test_resnet.r160_in1k"):
        network = build({"name": name, "pretrained": True}, "1x64x64", 1000).eval()
        images = torch.randn(2, 1, 64, 64)
        with torch.no_grad():
            expected = original(images.expand(-1, 3, -1, -1))
            torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    assert build({"name": name, "pretrained": True}, "3x64x64", 7)(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_pretrained_weights_bring_their_preprocessing() -> None:
    def found(name: str) -> Any:
        choice = Model.parse({"name": name, "pretrained": True})
        assert isinstance(choice, Model)
        return choice.preprocessing()

    resnet = found("torchvision/resnet18")
    assert (resnet.size, resnet.crop, resnet.interpolation) == ((224, 224), 0.875, "bilinear")
    assert resnet.mean == (0.485, 0.456, 0.406) and resnet.std == (0.229, 0.224, 0.225)
    assert found("resnet18") == resnet
    assert found("torchvision/googlenet").mean == (0.5, 0.5, 0.5)
    tiny = found("timm/test_resnet.r160_in1k")
    assert tiny.size == (160, 160) and tiny.crop == 0.95 and tiny.interpolation == "bilinear"
    for name in ("resnet18", "torchvision/alexnet", "timm/resnet18", "lenet5"):
        assert Model.parse(name).preprocessing() is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_the_table_is_what_the_library_lists(library: str) -> None:
    spec = importlib.util.spec_from_file_location("refresh", ROOT / "scripts" / "refresh_library_tables.py")
    assert spec is not None and spec.loader is not None
    refresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(refresh)
    stored = (ROOT / "dltrain" / "models" / f"{library}_models.txt").read_text()
    current = getattr(refresh, f"{library}_table")()
    if stored.splitlines()[0] != current.splitlines()[0]:
        pytest.skip(f"the table is of {stored.splitlines()[0]}, installed is {current.splitlines()[0]}")
    assert stored == current


def test_a_misspelt_library_model_is_caught_without_importing_anything_heavy() -> None:
    code = """
import sys
from dltrain.config import ConfigError
from dltrain.experiment.experiment import Experiment
from dltrain.models import Model
try:
    Experiment.parse("data: digits\\nmodel: timm/efficientnetb0")
except ConfigError as error:
    print(error.diagnostics[0].hint)
Model.parse({"name": "timm/resnet50.a1_in1k", "pretrained": True}), Model.parse("torchvision/alexnet")
print([name for name in ("torch", "torchvision", "timm", "numpy") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["did you mean `timm/efficientnet_b0`?", "[]"]
