"""Norms: the facts of each entry, references in numpy, gradients, running averages, types, and use in networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rationing import some
from torch import Tensor, nn

from dltrain import Experiment
from dltrain.data.types import ImageShape
from dltrain.layers import Activation, Norm
from dltrain.models import Model
from dltrain.tasks.outputs import Logits
from dltrain.testing import NormContract
from dltrain.testing.layers import perturb

BATCH, LAYER, INSTANCE = (0, 2, 3), (1, 2, 3), (2, 3)
GENERALIZED = ("superquantile", "median", "range", "deviation")
OPEN_RENORM = {"name": "batch_renorm", "plain_steps": 0, "r_steps": 0, "d_steps": 0}
VARIANTS: list[Any] = [
    *Norm.all_names(),
    {"name": "layer_norm", "over": "channels"},
    {"name": "l1_batch_norm", "unit_variance": True},
    OPEN_RENORM,
    {"name": "filter_response_norm", "learned_epsilon": True},
    *({"name": "generalized_batch_norm", "pair": pair} for pair in GENERALIZED[1:]),
]


def build(value: Any, channels: int = 6) -> nn.Module:
    norm = Norm.parse(value)
    assert isinstance(norm, Norm)
    return norm.build(channels).double()


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3 + 2


class TestNorms(NormContract):
    names = Norm.all_names()
    variants = [value for value in VARIANTS if isinstance(value, dict)]
    without_gradcheck = (str(OPEN_RENORM),)  # r and d take no gradient: own test


# -- references


def reference(value: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The definition in numpy, of a fresh layer in training."""
    options = value if isinstance(value, dict) else {"name": value}
    mean = x.mean(BATCH, keepdims=True)
    match options["name"]:
        case "batch_renorm":
            if "plain_steps" not in options:
                return (x - mean) / np.sqrt(x.var(BATCH, keepdims=True) + 1e-5)
            deviation = np.sqrt(x.var(BATCH, keepdims=True) + 1e-5)
            r, d = np.clip(deviation, 1 / 3, 3), np.clip(mean, -5, 5)
            return (x - mean) / deviation * r + d
        case "l1_batch_norm":
            factor = np.sqrt(np.pi / 2) if "unit_variance" in options else 1
            return (x - mean) / (np.abs(x - mean).mean(BATCH, keepdims=True) * factor + 1e-5)
        case "generalized_batch_norm":
            rows = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1)
            pairs = [generalized(row, options.get("pair", "superquantile")) for row in rows]
            center, scale = (np.array(values)[:, None, None] for values in zip(*pairs, strict=True))
            return (x - center) / scale
        case "switchable_norm":
            center = sum(x.mean(axes, keepdims=True) for axes in (INSTANCE, LAYER, BATCH)) / 3
            variance = sum(x.var(axes, keepdims=True) for axes in (INSTANCE, LAYER, BATCH)) / 3
            return np.asarray((x - center) / np.sqrt(variance + 1e-5))
        case _:
            epsilon = 1e-6 + (1e-4 if "learned_epsilon" in options else 0)
            return np.asarray(x / np.sqrt((x**2).mean(INSTANCE, keepdims=True) + epsilon))


def generalized(row: np.ndarray[Any, Any], pair: str) -> tuple[float, float]:
    if pair == "superquantile":
        quantile = np.quantile(row, 0.5, method="inverted_cdf")
        return quantile, np.sort(row)[len(row) // 2 :].mean() - row.mean() + 1e-5
    if pair == "median":
        return np.median(row), np.abs(row - np.median(row)).mean() + 1e-5
    if pair == "range":
        return (row.min() + row.max()) / 2, (row.max() - row.min()) / 2 + 1e-5
    return row.mean(), np.sqrt(row.var() + 1e-5)


OURS = [v for v in VARIANTS if (v["name"] if isinstance(v, dict) else v).startswith(
    ("batch_renorm", "l1_", "generalized", "switchable", "filter_response")
)]  # fmt: skip


@pytest.mark.parametrize("value", OURS, ids=str)
def test_norm_agrees_with_its_definition(value: Any) -> None:
    images = normal(4, 6, 3, 4)
    np.testing.assert_allclose(build(value)(images).detach().numpy(), reference(value, images.numpy()), atol=1e-9)


def test_switchable_norm_with_one_hot_weights_is_each_of_its_three() -> None:
    images = normal(4, 6, 3, 3)
    for choice, name in enumerate(("instance_norm", "layer_norm", "batch_norm")):
        ours, other = build("switchable_norm"), build(name)
        with torch.no_grad():
            for logits in (ours.mean_logits, ours.variance_logits):
                logits.copy_(torch.where(torch.arange(3) == choice, 0.0, -1e9))  # type: ignore[operator]
        for training in (True, True, False):
            ours.train(training), other.train(training)
            torch.testing.assert_close(ours(images), other(images), rtol=0, atol=1e-9)


def test_batch_renorm_unclipped_trains_on_what_evaluation_gives() -> None:
    images = normal(4, 6, 3, 3)
    options = {"plain_steps": 0, "r_steps": 0, "d_steps": 0, "r_max": 1e6, "d_max": 1e6}
    layer = build({"name": "batch_renorm", **options})
    layer(images * 2 + 1)
    expected = layer.eval()(images)
    torch.testing.assert_close(layer.train()(images), expected, rtol=0, atol=1e-9)
    assert not torch.allclose(layer.eval()(images), expected), "the averages have moved"


def test_batch_renorm_takes_its_correction_as_a_constant() -> None:
    images = normal(4, 6, 3, 3).requires_grad_()
    plain, renorm = build("batch_norm"), build(OPEN_RENORM)
    weights = normal(4, 6, 3, 3, seed=1)
    with torch.no_grad():
        r = (images.var((0, 2, 3), correction=0) + 1e-5).sqrt().clamp(1 / 3, 3)
    expected = torch.autograd.grad((plain(images) * r[:, None, None] * weights).sum(), images)[0]
    torch.testing.assert_close(torch.autograd.grad((renorm(images) * weights).sum(), images)[0], expected)


def test_batch_renorm_opens_its_limits_over_the_steps() -> None:
    layer: Any = build("batch_renorm")
    limits = {}
    for step in (0, 4_999, 15_000, 25_000, 40_000, 90_000):
        layer.batches.fill_(step)
        limits[step] = [limit.item() for limit in layer.limits()]
    assert limits[0] == limits[4_999] == [1, 0] and limits[40_000] == limits[90_000] == [3, 5]
    assert limits[15_000] == pytest.approx([1 + 2 * 10 / 35, 2.5], abs=1e-3)
    assert limits[25_000] == pytest.approx([1 + 2 * 20 / 35, 5], abs=1e-3)
    layer.batches.fill_(7)
    layer(normal(2, 6, 2, 2))
    assert layer.batches == 7, "a forward is no step"


def test_generalized_batch_norm_centres_on_its_quantile() -> None:
    for level in (0.25, 0.5, 0.9):
        images = torch.arange(9.0, dtype=torch.float64).pow(2).view(9, 1, 1, 1)
        value = {"name": "generalized_batch_norm", "level": level, "epsilon": 1e-12}
        out = build(value, 1)(images).flatten()
        center = max(int(np.ceil(level * 9)) - 1, 0)
        assert out[center] == 0 and (out[:center] < 0).all() and (out[center + 1 :] > 0).all()
        x = images.flatten().numpy()  # the mean of the greatest share, the value at its border in part
        points = np.clip(np.arange(1, 10) / 9 - level, 0, 1 / 9)
        above = (x * points).sum() / (1 - level) - x.mean()
        np.testing.assert_allclose(out.numpy(force=True), (x - x[center]) / above, atol=1e-9)


def test_l1_batch_norm_with_its_factor_is_batch_norm_on_normal_data() -> None:
    images = normal(200, 2, 10, 10)
    ours = build({"name": "l1_batch_norm", "unit_variance": True}, 2)(images)
    torch.testing.assert_close(ours, build("batch_norm", 2)(images), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", ["batch_norm", "l1_batch_norm", "generalized_batch_norm", "switchable_norm"])
def test_running_averages_become_the_statistics_of_the_batch(name: str) -> None:
    images = normal(64, 6, 8, 8)
    layer = build({"name": name, "momentum": 1.0})
    trained = layer(images)
    torch.testing.assert_close(layer.eval()(images), trained, rtol=0, atol=1e-3)  # the variance loses its bias
    layer = build({"name": name, "momentum": 0.25})
    start = {key: tensor.clone() for key, tensor in layer.named_buffers()}
    full = build({"name": name, "momentum": 1.0})
    layer(images), full(images)
    whole = dict(full.named_buffers())
    for key, tensor in layer.named_buffers():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, start[key] * 0.75 + whole[key] * 0.25)


def test_filter_response_norm_with_tlu_is_timms() -> None:
    from timm.layers import FilterResponseNormTlu2d

    images = normal(4, 6, 3, 3).float()
    theirs = FilterResponseNormTlu2d(6, eps=1e-6)
    ours = nn.Sequential(build("filter_response_norm"), Activation.parse("tlu").build(6)).float()  # type: ignore[attr-defined]
    assert sum(p.numel() for p in ours.parameters()) == 3 * 6
    perturb(theirs), perturb(ours)
    torch.testing.assert_close(ours(images), theirs(images))
    threshold = next(iter(ours[1].parameters()))[:, None, None]
    torch.testing.assert_close(ours[1](images), torch.relu(images - threshold) + threshold)


def test_local_response_norm_of_ones_is_alexnets() -> None:
    out = build("local_response_norm", 5)(torch.ones(1, 5, 1, 1, dtype=torch.float64)).flatten()
    assert out[0].item() == pytest.approx(0.594537, abs=1e-6) and out[2].item() == pytest.approx(0.594492, abs=1e-6)


def test_rms_norm_is_layer_norm_where_the_mean_is_zero() -> None:
    images = normal(2, 6, 3, 3)
    images -= images.mean(1, keepdim=True)
    layer = build({"name": "layer_norm", "over": "channels"})
    torch.testing.assert_close(build("rms_norm")(images), layer(images), rtol=0, atol=1e-9)


def test_sync_batch_norm_of_one_process_is_batch_norm() -> None:
    ours, other = build("sync_batch_norm"), build("batch_norm")
    for training in (True, True, False):
        ours.train(training), other.train(training)
        assert torch.equal(ours(normal(3, 6, 2, 2)), other(normal(3, 6, 2, 2)))


def test_norms_of_one_pixel_are_finite_and_weights_do_not_decay() -> None:
    from dltrain.optim.impl.roles import exempt

    for value in OURS:
        layer = build(value)
        assert layer(normal(4, 6, 1, 1)).isfinite().all()
        assert exempt(layer, ["norm"]) == {name for name, _ in layer.named_parameters()}


# -- in networks


@pytest.mark.parametrize("network", ["convnet", "resnet20"])
@pytest.mark.parametrize("value", some(VARIANTS, 2))
def test_network_with_any_norm_trains_two_steps(network: str, value: Any) -> None:
    torch.manual_seed(0)
    options = {"widths": [4, 8]} if network == "convnet" else {}
    model = Model.parse({"name": network, "norm": value, **options}).make(ImageShape(3, 16, 16), Logits(4))  # type: ignore[attr-defined]
    model.to(memory_format=torch.channels_last)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0] or value == OPEN_RENORM  # that one moves with its averages
    assert model.eval()(images).isfinite().all()


def test_norm_is_set_by_yaml(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("data: digits\nmodel: {name: resnet20, norm: {name: switchable_norm, momentum: 0.2}}\n")
    model = Experiment.load(file).override("model.norm.epsilon", 1e-4).model.make(ImageShape(1, 8, 8), Logits(10))
    ours = [module for module in model.modules() if type(module).__name__ == "SwitchableNorm"]
    assert len(ours) == 19 and ours[0].momentum == 0.2 and ours[0].epsilon == 1e-4


def test_batch_renorm_refuses_an_end_before_its_start() -> None:
    with pytest.raises(ValueError, match="`r_steps` \\(10\\) must not be below `plain_steps` \\(50\\)"):
        Norm.parse({"name": "batch_renorm", "plain_steps": 50, "r_steps": 10})
