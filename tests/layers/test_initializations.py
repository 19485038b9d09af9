"""Initial weights: the facts of each entry, what torch draws, and what the papers promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dltrain.config import ConfigError
from dltrain.data.types import ImageShape
from dltrain.layers import Initialization
from dltrain.models import Model
from dltrain.tasks.outputs import Logits
from dltrain.testing import InitializationContract


def parse(value: Any) -> Initialization:
    entry = Initialization.parse(value)
    assert isinstance(entry, Initialization)
    return entry


class TestInitializations(InitializationContract):
    names = Initialization.all_names()
    fixed = ("zeros", "constant", "dirac", "fixup")


weights = TestInitializations.weights


@pytest.mark.parametrize("name", sorted(set(Initialization.all_names()) - {"zeros", "constant"}))
def test_initialization_of_a_network_is_its_own_randomness(name: str) -> None:
    def initial(before: int) -> dict[str, Tensor]:
        torch.manual_seed(before)
        network = Model.parse("resnet20").make(ImageShape(3, 16, 16), Logits(10))  # type: ignore[attr-defined]
        if name == "dirac":
            nn.init.zeros_(network[-1].weight)
        images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))
        state = torch.get_rng_state()
        parse(name).apply(network, 5, images)
        assert torch.equal(torch.get_rng_state(), state), "it draws from the global generator"
        assert all(module.training for module in network.modules())
        assert name == "dirac" or not network[-1].bias.any()
        assert network(images).isfinite().all()
        return {key: parameter.detach() for key, parameter in network.named_parameters() if parameter.ndim > 1}

    first, second = initial(0), initial(1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    network = Model.parse("resnet20").make(ImageShape(3, 16, 16), Logits(10))  # type: ignore[attr-defined]
    before = {key: tensor.clone() for key, tensor in network.state_dict().items() if tensor.ndim < 2}
    parse(name).apply(network, 5, torch.randn(8, 3, 16, 16))
    head = f"{len(network) - 1}.bias"  # the one bias of a weighted layer
    changed = [key for key, value in before.items() if not torch.equal(network.state_dict()[key], value)]
    gains = {key for key in changed if name == "zero_gamma" and key.endswith("norm2.weight")}
    assert set(changed) - gains <= {head}, "norms keep their values"


def test_scaled_initializations_are_torchs() -> None:
    pairs: list[tuple[Any, Any]] = [
        ("xavier_uniform", lambda w, g: nn.init.xavier_uniform_(w, generator=g)),
        ({"name": "xavier_normal", "gain": 2.0}, lambda w, g: nn.init.xavier_normal_(w, 2.0, generator=g)),
        ("he_uniform", lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g)),
        ({"name": "he_normal", "fan": "out"}, lambda w, g: nn.init.kaiming_normal_(
            w, mode="fan_out", nonlinearity="relu", generator=g)),
        ("orthogonal", lambda w, g: nn.init.orthogonal_(w, generator=g)),
    ]  # fmt: skip
    from dltrain.data.random import derive_seed

    for value, draw in pairs:
        for shape in ((400, 200), (48, 16, 3, 3)):
            expected = draw(torch.empty(shape), torch.Generator().manual_seed(derive_seed(3, 0, "initialization")))
            torch.testing.assert_close(weights(value, shape, seed=3), expected, rtol=1e-5, atol=1e-7)


def test_fans_of_grouped_and_transposed_convolutions() -> None:
    for layer, fan_in, fan_out in (
        (nn.Conv2d(32, 64, 3, groups=32), 9, 18),
        (nn.ConvTranspose2d(40, 20, 4), 640, 320),
        (nn.Conv1d(50, 70, 5), 250, 350),
    ):
        for fan, size in (("in", fan_in), ("out", fan_out)):
            parse({"name": "he_normal", "fan": fan}).apply(layer, 0)
            assert layer.weight.std().item() == pytest.approx((2 / size) ** 0.5, rel=0.1)


def test_he_keeps_the_mean_square_through_relu() -> None:
    network = nn.Sequential(*(layer for _ in range(20) for layer in (nn.Linear(300, 300), nn.ReLU())))
    parse("he_normal").apply(network, 0)
    out = network[:-1](torch.randn(100, 300, generator=torch.Generator().manual_seed(0)))
    assert 0.3 < out.square().mean().item() / 2 < 3


@pytest.mark.parametrize("cut", [0.5, 1.0, 2.0, 3.5])
def test_truncated_normal_has_its_deviation_after_the_cut(cut: float) -> None:
    values = weights({"name": "trunc_normal", "cut": cut, "deviation": 0.2}, (400, 250))
    assert values.std().item() == pytest.approx(0.2, rel=0.01)
    assert values.abs().max().item() <= 0.2 * max(cut, 1.75) * 1.2


def test_orthogonal_rows() -> None:
    tall, wide = weights("orthogonal", (400, 200)), weights({"name": "orthogonal", "gain": 2.0}, (48, 16, 3, 3))
    torch.testing.assert_close(tall.T @ tall, torch.eye(200), rtol=0, atol=1e-5)
    rows = wide.flatten(1)
    torch.testing.assert_close(rows @ rows.T, 4 * torch.eye(48), rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
def test_dirac_gives_its_input(groups: int) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    parse("dirac").apply(layer, 0)
    images = torch.randn(2, 8, 5, 5)
    assert torch.equal(layer(images), images)
    linear = nn.Linear(3, 3)
    before = linear.weight.clone()
    parse("dirac").apply(nn.Sequential(linear), 0)
    assert torch.equal(linear.weight, before)


@pytest.mark.parametrize("network", ["resnet20", "convnet", "lenet5_modern"])
def test_lsuv_gives_each_layer_unit_variance(network: str) -> None:
    model = Model.parse(network).make(ImageShape(3, 32, 32), Logits(10))  # type: ignore[attr-defined]
    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 4 - 1
    state = {key: value.clone() for key, value in model.named_buffers()}
    model[0].eval()
    parse("lsuv").apply(model, 0, images)
    assert model.training and not model[0].training, "modes are put back"
    assert all(torch.equal(value, state[key]) for key, value in model.named_buffers()), "norms learn nothing"
    assert not any(module._forward_hooks for module in model.modules())
    variances: list[float] = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _, __, out: variances.append(out.var().item()))
    model.eval()(images)
    assert len(variances) >= 4 and all(0.9 <= variance <= 1.1 for variance in variances)


def test_lsuv_asks_for_images_and_leaves_dead_layers() -> None:
    with pytest.raises(ValueError, match="batch of images"):
        parse("lsuv").apply(nn.Linear(2, 2), 0)
    dead = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    parse("lsuv").apply(dead, 0, torch.zeros(2, 1, 2, 2))
    assert dead[1].weight.isfinite().all()  # type: ignore[operator, union-attr]


def test_constant_is_refused_where_units_would_stay_equal() -> None:
    regression = Model.parse("softmax_regression").make(ImageShape(1, 4, 4), Logits(3))  # type: ignore[attr-defined]
    parse({"name": "constant", "value": 0.5}).apply(regression, 0)
    assert (regression[-1].weight == 0.5).all()
    with pytest.raises(ConfigError, match="makes all units of a hidden layer equal"):
        parse("zeros").apply(Model.parse("mlp").make(ImageShape(1, 4, 4), Logits(3)), 0)  # type: ignore[attr-defined]
