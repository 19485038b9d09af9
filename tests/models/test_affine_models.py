"""The affine models of the notes: least squares, logistic regression, and the perceptron with its rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rationing import some
from torch import Tensor, nn

from dltrain import ConfigError, Experiment
from dltrain.data.types import ImageShape, Vector
from dltrain.models import Model
from dltrain.tasks.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError, PerceptronLoss
from dltrain.tasks.outputs import Logits, Numbers, Output, YesNoLogits

AND, XOR = [0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]
INPUTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def made(value: Any, size: int, output: Output) -> nn.Module:
    section = Model.parse(value)
    assert isinstance(section, Model)
    return section.make(Vector(size), output)


def mistakes_of(targets: list[float], epochs: int = 100, lr: float = 1.0) -> tuple[list[int], nn.Module]:
    """How many mistakes a perceptron makes in each epoch of one example at a time, and what it has become."""
    network, loss = made("perceptron", 2, YesNoLogits(1)), PerceptronLoss().build(YesNoLogits(1))
    optimizer, counts = torch.optim.SGD(network.parameters(), lr), []
    for _ in range(epochs):
        counts.append(0)
        for x, t in zip(INPUTS[:, None], torch.tensor(targets), strict=True):
            optimizer.zero_grad()
            output = network(x)
            counts[-1] += int((output > 0) != t)
            loss(output, t[None, None]).sum().backward()
            optimizer.step()
    return counts, network


def test_the_perceptron_learns_and_by_finitely_many_mistakes_and_never_xor() -> None:
    counts, network = mistakes_of(AND)
    assert sum(counts) < 40 and counts[20:] == [0] * 80
    assert ((network(INPUTS)[:, 0] > 0).float().tolist()) == AND
    counts, _ = mistakes_of(XOR)
    assert min(counts) > 0


def test_the_gradient_of_its_loss_is_its_rule() -> None:
    network, loss = made("perceptron", 5, YesNoLogits(1)), PerceptronLoss().build(YesNoLogits(1))
    generator = torch.Generator().manual_seed(0)
    weight, bias = network.parameters()
    with torch.no_grad():
        weight.normal_(generator=generator)
    for target in (0.0, 1.0):
        for x in torch.randn(10, 1, 5, generator=generator):
            network.zero_grad()
            output = network(x)
            loss(output, torch.tensor([[target]])).sum().backward()
            assert weight.grad is not None and bias.grad is not None
            step = target - float(output > 0)  # w += lr (t - y) x
            torch.testing.assert_close(-weight.grad, step * x)
            assert -bias.grad.item() == step


def test_a_hidden_layer_of_two_units_learns_xor() -> None:
    """The MLP 2-2-1, from a start that does not end in a local minimum."""
    targets, loss = torch.tensor(XOR)[:, None], BinaryCrossEntropy().build(YesNoLogits(1))
    torch.manual_seed(0)
    network = made({"name": "mlp", "hidden": [2], "activation": "tanh"}, 2, YesNoLogits(1))
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(network(INPUTS), targets).mean().backward()
        optimizer.step()
    assert (network(INPUTS) > 0).float().equal(targets)


def test_linear_regression_reaches_least_squares() -> None:
    draw = np.random.default_rng(0)
    x, noise = draw.normal(0, 1, (80, 4)), draw.normal(0, 0.3, (80, 2))
    y = x @ draw.normal(0, 1, (4, 2)) + 0.5 + noise
    solution, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(80)]), y, rcond=None)
    network = made("linear_regression", 4, Numbers(2)).double()
    optimizer, loss = torch.optim.SGD(network.parameters(), 0.5), MeanSquaredError().build(Numbers(2))
    for _ in range(500):
        optimizer.zero_grad()
        loss(network(torch.from_numpy(x)), torch.from_numpy(y)).mean().backward()
        optimizer.step()
    weight, bias = (p.detach().numpy() for p in network.parameters())
    assert np.abs(np.vstack([weight.T, bias]) - solution).max() < 1e-9


def test_logistic_regression_is_softmax_regression_with_the_difference_of_weights() -> None:
    """w = w1 - w0: the same losses, and the same gradients for it, so that a step at twice the rate stays the same."""
    x, classes = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).double(), torch.arange(30) % 2
    one = made("logistic_regression", 6, YesNoLogits(1)).double()
    two = made("softmax_regression", 6, Logits(2)).double()
    steps: list[tuple[nn.Module, Any, Tensor, float]] = [
        (one, BinaryCrossEntropy().build(YesNoLogits(1)), classes[:, None].double(), 0.4),
        (two, CrossEntropy().build(Logits(2)), classes, 0.2),
    ]
    for _ in range(20):
        for network, loss, targets, lr in steps:
            network.zero_grad()
            loss(network(x), targets).mean().backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    assert parameter.grad is not None
                    parameter -= lr * parameter.grad
    difference = two(x)[:, 1] - two(x)[:, 0]
    torch.testing.assert_close(one(x)[:, 0], difference)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("perceptron", "`perceptron` gives a number per yes-or-no question, and task `classification` wants"),
        ("linear_regression", "`linear_regression` gives a number per target, and task `classification` wants"),
    ],
)
def test_a_model_for_another_task_is_refused_at_its_key(model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.parse(f"data: digits\nmodel: {model}\n", "e.yaml")
    (problem,) = caught.value.diagnostics
    assert str(problem.where).startswith("e.yaml:2:")
    if model == "perceptron":
        assert problem.notes == ("set `task: binary_classification`",)
        fit = Experiment.parse(f"data: digits\nmodel: {model}\ntask: binary_classification\n")
        assert fit.loss == PerceptronLoss()


FAMILIES = [
    "mlp", "convnet", "lenet5", "resnet20", "vgg11", "mobilenet_v3_small", "densenet_small", "nin", "squeezenet1_1",
]  # fmt: skip


@pytest.mark.parametrize("name", some([name for name in FAMILIES if Model.lookup(name) is not None], 2))
def test_every_family_of_networks_gives_as_many_numbers_as_are_asked_for(name: str) -> None:
    section = Model.parse(name)
    assert isinstance(section, Model)
    size = 96
    for output in (Numbers(1), Numbers(3), YesNoLogits(1)):
        assert issubclass(type(output), section.outputs)
        with torch.device("meta"):
            network = section.make(ImageShape(3, size, size), output).eval()
            assert network(torch.zeros(2, 3, size, size)).shape == (2, output.count)
