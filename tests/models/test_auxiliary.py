"""Auxiliary heads: their sizes, the loss that they add in training, and nothing of them in evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from training import arrays_experiment, assert_same_state, built, trained, write_arrays

from dltrain.config import ConfigError
from dltrain.data.targets import Classes
from dltrain.data.types import ImageShape
from dltrain.models import Model
from dltrain.tasks import Classification
from dltrain.tasks.losses import Loss
from dltrain.tasks.outputs import Logits

SMALL = {"name": "googlenet", "auxiliary": 0.3, "stem": "small"}


def build(value: Any, side: int = 32, classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return Model.parse(value).make(ImageShape(3, side, side), Logits(classes))  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("value", "classes", "expected"),
    [
        ({"name": "googlenet"}, 1000, 13_378_280),
        ({"name": "googlenet"}, 10, 10_334_030),
        ({"name": "googlenet", "norm": "batch_norm"}, 1000, 13_385_816),
        ({"name": "torchvision/googlenet"}, 1000, 13_004_888),
        ({"name": "torchvision/inception_v3"}, 1000, 27_161_264),
        ({"name": "inception_v3"}, 1000, 27_161_264),
    ],
    ids=str,
)
def test_network_with_heads_has_its_published_number_of_parameters(
    value: dict[str, Any], classes: int, expected: int
) -> None:
    with torch.device("meta"):
        network = build({**value, "auxiliary": 0.4}, 299, classes)
        assert sum(p.numel() for p in network.parameters()) == expected
        assert network(torch.empty(2, 3, 299, 299))[0].shape == (2, classes)
        assert network.eval()(torch.empty(2, 3, 299, 299)).shape == (2, classes)


@pytest.mark.parametrize("stem", ["small", "large"])
def test_heads_work_on_small_images_and_leave_evaluation_as_it_is(stem: str) -> None:
    network = build({"name": "googlenet", "auxiliary": 0.3, "stem": stem})
    outputs = network(torch.randn(2, 3, 32, 32))
    assert [out.shape for out in outputs] == [(2, 10)] * 3
    sum(out.square().sum() for out in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    plain = build({"name": "googlenet", "stem": stem}).eval()
    body = [p for name, p in network.named_parameters() if not name.startswith("heads")]
    with torch.no_grad():
        for own, other in zip(plain.parameters(), body, strict=True):
            own.copy_(other)
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(network.eval()(images), plain(images))


def test_published_pool_of_the_heads() -> None:
    from dltrain.models.impl.modular import AuxiliaryHead
    from dltrain.models.impl.parts import Layers

    head = AuxiliaryHead(3, 5, Layers(lambda _: nn.ReLU(), lambda _: nn.ReLU(), None, shifts=False)).eval()
    maps = torch.randn(2, 3, 14, 14)
    assert torch.equal(head(maps), head.layers(head.convolution(nn.AvgPool2d(5, 3)(maps))))


def test_the_task_adds_the_weighted_losses_of_the_heads() -> None:
    loss = Loss.parse("cross_entropy")
    assert isinstance(loss, Loss)
    task = Classification().build(loss, Classes(["a", "b", "c"]), torch.device("cpu"), auxiliary=0.3)
    outputs, labels = tuple(torch.randn(3, 4, 3).unbind()), torch.tensor([0, 1, 2, 0])
    own, *heads = (nn.functional.cross_entropy(out, labels, reduction="none") for out in outputs)
    logits, losses, total = task.losses(outputs, labels)
    assert torch.equal(logits, outputs[0]) and torch.equal(losses, own)
    torch.testing.assert_close(total, own + 0.3 * (heads[0] + heads[1]))
    assert task.losses(outputs[0], labels)[2].equal(own)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_with_heads_resumes_bit_for_bit(precision: str, tmp_path: Path) -> None:
    changes = {"model": SMALL, "training.epochs": 1, "training.batch_size": 6, "data.size": 16}
    changes |= {"training.precision": precision}
    path = write_arrays(tmp_path / "images.npz", 50)
    experiment = arrays_experiment(path, **changes)
    whole, part = trained(experiment), trained(experiment, until=3)
    again = built(experiment, 1e9, part.state_dict())
    list(again.run())
    assert whole.step > 3
    left, right = again.state_dict(), whole.state_dict()
    for key in ("model", "optimizer", "metrics", "history"):
        assert_same_state(left[key], right[key], key)
    assert any(name.startswith("heads") for name in whole.parts.model.state_dict())


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="training from scratch"):
        Model.parse({"name": "inception_v3", "auxiliary": 0.4, "pretrained": True})
    with pytest.raises(ConfigError, match="the least size that it takes is 299x299"), torch.device("meta"):
        build({"name": "inception_v3", "auxiliary": 0.4}, 80)
    with pytest.raises(ConfigError, match="takes no `activation`"):
        build({"name": "inception_v3", "auxiliary": 0.4, "activation": "silu", "stem": "large"}, 320)
