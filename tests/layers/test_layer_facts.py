"""What the study notes say of layers and blocks, checked on the layers that our networks are made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers import SeparableConv2d
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from dltrain.models.impl.densenet import DenseLayer, transition
from dltrain.models.impl.modular import Inception
from dltrain.models.impl.parts import Layers, head, size_after
from dltrain.models.impl.resnet import BasicBlock as OwnBasicBlock

PARTS = Layers(lambda _: nn.ReLU(), lambda _: nn.ReLU(), nn.BatchNorm2d, shifts=True)
BARE = Layers(lambda _: nn.ReLU(), lambda _: nn.ReLU(), None, shifts=False)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def weights(*layers: nn.Module) -> int:
    return sum(p.numel() for layer in layers for name, p in layer.named_parameters() if name.endswith("weight"))


def test_two_linear_layers_without_activation_are_one() -> None:
    first, second = nn.Linear(5, 7, dtype=torch.float64), nn.Linear(7, 3, dtype=torch.float64)
    one = F.linear(images(4, 5), second.weight @ first.weight, second.weight @ first.bias + second.bias)
    torch.testing.assert_close(second(first(images(4, 5))), one)


@pytest.mark.parametrize(
    ("side", "kernel", "padding", "stride", "expected"), [(28, 5, 0, 1, 24), (224, 7, 3, 2, 112), (227, 11, 0, 4, 55)]
)
def test_size_of_what_a_convolution_puts_out(side: int, kernel: int, padding: int, stride: int, expected: int) -> None:
    with torch.device("meta"):
        out = nn.Conv2d(1, 1, kernel, stride, padding)(torch.empty(1, 1, side, side))
    assert out.shape[2:] == (expected, expected) and size_after(side, (kernel, stride, padding)) == expected


def test_convolution_is_a_product_with_columns_of_patches() -> None:
    layer, maps = nn.Conv2d(3, 4, (3, 2), padding=1, stride=2, dtype=torch.float64), images(2, 3, 9, 8)
    columns = F.unfold(maps, (3, 2), padding=1, stride=2)
    assert columns.shape[1] == 3 * 3 * 2
    out = layer.weight.reshape(4, -1) @ columns + layer.bias[:, None]  # type: ignore[index]
    torch.testing.assert_close(out.view_as(layer(maps)), layer(maps))


def test_pools_halve_and_learn_nothing() -> None:
    maps = images(2, 3, 8, 6)
    for pool in (nn.MaxPool2d(2), nn.AvgPool2d(2)):
        assert pool(maps).shape == (2, 3, 4, 3) and not list(pool.parameters())
    assert nn.MaxPool2d(2)(maps)[0, 0, 0, 0] == maps[0, 0, :2, :2].max()
    torch.testing.assert_close(nn.AvgPool2d(2)(maps)[0, 0, 0, 0], maps[0, 0, :2, :2].mean())


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8)])
def test_the_head_takes_the_mean_of_each_map(size: tuple[int, int]) -> None:
    pool = nn.Sequential(*head(3, 10)[:2])
    constant = torch.tensor([1.0, -2.0, 0.5])
    assert torch.equal(pool(constant.view(1, 3, 1, 1).expand(2, 3, *size)), constant.expand(2, 3))


def test_a_1x1_convolution_is_a_linear_layer_on_each_pixel() -> None:
    layer, maps = nn.Conv2d(3, 5, 1, dtype=torch.float64), images(2, 3, 4, 6)
    out = F.linear(maps.movedim(1, -1), layer.weight[:, :, 0, 0], layer.bias).movedim(-1, 1)
    torch.testing.assert_close(layer(maps), out)


def test_groups_divide_the_weights_and_shuffles_undo_each_other() -> None:
    assert weights(nn.Conv2d(12, 24, 3)) == 4 * weights(nn.Conv2d(12, 24, 3, groups=4))
    maps = images(2, 12, 3, 3)
    shuffled = nn.ChannelShuffle(4)(maps)
    assert torch.equal(shuffled, maps.view(2, 4, 3, 3, 3).transpose(1, 2).flatten(1, 2))
    assert torch.equal(nn.ChannelShuffle(3)(shuffled), maps) and not torch.equal(shuffled, maps)


def test_costs_of_separable_and_stacked_convolutions() -> None:
    separable = SeparableConv2d(32, 64, 3)
    ratio = weights(separable.conv_dw, separable.conv_pw) / weights(nn.Conv2d(32, 64, 3))
    assert ratio == pytest.approx(1 / 64 + 1 / 9) == pytest.approx(0.1267, abs=1e-4)
    three = nn.Conv2d(8, 8, 3)
    assert weights(three, three) == 18 * 64 < weights(nn.Conv2d(8, 8, 5))
    assert weights(three, three, three) == 27 * 64 < weights(nn.Conv2d(8, 8, 7))


@pytest.mark.parametrize("depth", [2, 3])
def test_stacked_3x3_convolutions_see_as_far_as_a_larger_one(depth: int) -> None:
    maps = images(1, 1, 11, 11).requires_grad_()
    stack = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, dtype=torch.float64) for _ in range(depth)))
    stack(maps)[0, 0, 5, 5].backward()
    assert maps.grad is not None
    rows, columns = maps.grad[0, 0].nonzero(as_tuple=True)
    side = 2 * depth + 1
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side


def test_backpropagation_through_sums_and_products() -> None:
    x, y = images(3).requires_grad_(), images(3).add(1).requires_grad_()
    (x + y).backward(torch.full((3,), 2.0, dtype=torch.float64))
    assert x.grad is not None and y.grad is not None
    assert (x.grad == 2).all() and (y.grad == 2).all()
    x.grad = y.grad = None
    (x * y).sum().backward()
    assert torch.equal(x.grad, y) and torch.equal(y.grad, x)  # type: ignore[arg-type]
    layer = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)).double()
    assert torch.autograd.gradcheck(layer, images(1, 2, 6, 6).requires_grad_())


def test_softmax_is_stable() -> None:
    logits = images(4, 5)
    torch.testing.assert_close(logits.softmax(1).sum(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close((logits + 100).softmax(1), logits.softmax(1))
    assert torch.equal(torch.tensor([1000.0, 0.0]).softmax(0), torch.tensor([1.0, 0.0]))


def test_inception_keeps_the_size_and_concatenates_its_branches() -> None:
    block = Inception(8, (2, 3, 4, 5, 6, 7), PARTS).double().eval()
    maps = images(2, 8, 5, 9)
    out = block(maps)
    assert out.shape == (2, 2 + 4 + 6 + 7, 5, 9)
    torch.testing.assert_close(out[:, 2:6], block.branch3(maps))


@pytest.mark.parametrize("block", [OwnBasicBlock(4, 4, 1, PARTS), BasicBlock(4, 4)], ids=["ours", "torchvision"])
def test_a_residual_block_with_a_zero_branch_is_its_activation(block: nn.Module) -> None:
    last = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    maps = images(2, 4, 5, 5).float()
    assert torch.equal(block(maps), maps.relu())


def test_a_dense_block_keeps_its_inputs_and_grows() -> None:
    layers = nn.Sequential(*(DenseLayer(6 + 4 * index, 4, PARTS, bottleneck=False) for index in range(3)))
    maps = images(2, 6, 8, 8).float()
    out = layers(maps)
    assert out.shape[1] == 6 + 3 * 4 and torch.equal(out[:, :6], maps)
    assert nn.Sequential(*transition(18, 9, BARE))(out).shape == (2, 9, 4, 4)
