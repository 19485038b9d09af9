"""What record trainings change in a network, in any network: a small head, and norms that follow their batch fast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dltrain.data.types import ImageShape
from dltrain.models import Model
from dltrain.tasks.losses import CrossEntropy
from dltrain.tasks.outputs import Logits

SHAPE = ImageShape(3, 32, 32)
NETWORKS = ["airbench94", "resnet20", "lenet5", "convnet", "timm/resnet18", "torchvision/squeezenet1_1"]


def network(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    section = Model.parse({"name": name, **options})
    assert isinstance(section, Model)
    return section.make(SHAPE, Logits(5))


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_logits_of_any_network_can_be_scaled(name: str) -> None:
    plain, scaled = network(name).eval(), network(name, head_scale=0.25).eval()
    assert plain(images()).std() > 0 or name == "airbench94"  # whose filters are still to be measured
    torch.testing.assert_close(scaled(images()), plain(images()) * 0.25)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in scaled.parameters())


@torch.no_grad()
def test_a_scaled_head_keeps_its_dropout() -> None:
    scaled = network("resnet20", head_scale=0.25, dropout=0.5)
    torch.testing.assert_close(scaled.eval()(images()), network("resnet20").eval()(images()) * 0.25)
    assert [line for line in scaled.adaptation.lines() if line.startswith("head_scale: 0.25")]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [*NETWORKS[:2], *NETWORKS[3:5], "timm/mobilenetv3_small_050"])
@torch.no_grad()
def test_the_statistics_of_any_network_can_follow_their_batch_fast(name: str) -> None:
    model = network(name, norm={"name": "batch_norm", "momentum": 0.4})
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and {norm.momentum for norm in norms} == {0.4}
    means: list[Tensor] = []
    norms[0].register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].mean((0, 2, 3))))
    model.train()(images())
    torch.testing.assert_close(norms[0].running_mean, 0.4 * means[0])


def test_a_summed_loss_is_a_learning_rate() -> None:
    """A loss that is a sum over N examples takes the steps of their mean with N times the rate, and a decay of 1/N."""
    labels, count = torch.arange(8) % 5, 8
    loss = CrossEntropy(label_smoothing=0.2).build(Logits(5))
    weights = []
    for total, lr, decay in ((False, 0.8, 0.01), (True, 0.8 / count, 0.01 * count)):
        model = network("lenet5").double()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=decay, momentum=0.85, nesterov=True)
        for _ in range(3):
            losses = loss(model(images(count).double()), labels)
            (losses.sum() if total else losses.mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-10, atol=1e-12)
