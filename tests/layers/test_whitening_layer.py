"""The whitening first layer: what it makes of patches, that it is frozen, restored, and takes any network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training import assert_same_state, trained

from dltrain import ConfigError, Experiment, build
from dltrain.data.types import ImageShape
from dltrain.engine.predictor import restore_predictor
from dltrain.layers.whitening import Whitening
from dltrain.runs import checkpoints
from dltrain.tasks.outputs import Logits

TEXT = """
data: {name: synthetic, examples: 200, classes: 3, shape: [3, 16, 16]}
augmentation: [horizontal_flip]
model: {name: %s, whitening: {images: 120}}
optimizer: {name: sgd, lr: 0.02, momentum: 0.9}
training: {epochs: 2, batch_size: 30, precision: float32}
"""


def test_patches_come_out_white() -> None:
    torch.manual_seed(0)
    images = F.avg_pool2d(torch.randn(64, 3, 20, 20), 3, 1)  # neighbouring pixels are alike
    network = Whitening(epsilon=1e-6, bias=False, activation="identity").build(3, nn.Identity())  # type: ignore[arg-type]
    network.measure([images[:32], images[32:]], 1e-6)  # type: ignore[operator]
    maps = network(images)
    assert maps.shape == (64, 24, 17, 17)
    torch.testing.assert_close(maps[:, :12], -maps[:, 12:])
    values = maps[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(values @ values.T / values.shape[1], torch.eye(12), atol=2e-2, rtol=0)


@pytest.mark.usefixtures("one_stem")
@pytest.mark.parametrize("name", ["convnet", "resnet20", "resnet18", "timm/test_resnet"])
def test_any_network_stands_behind_it(name: str) -> None:
    trainer = build(Experiment.parse(TEXT % name).override("training.limit_batches", 1), "cpu")
    layer = trainer.parts.model.whiten
    assert isinstance(layer, nn.Conv2d) and layer.weight.shape == (24, 3, 2, 2) and layer.weight.any()
    before = layer.weight.detach().clone()
    for _ in trainer.run():
        pass
    assert torch.equal(layer.weight, before) and layer.bias is not None and layer.bias.any()


def test_it_is_the_same_again_resumed_and_restored(tmp_path: Path) -> None:
    whole = trained(Experiment.parse(TEXT % "resnet20"))
    first = trained(Experiment.parse(TEXT % "resnet20"), until=5)
    checkpoints.save(first.state_dict(), tmp_path / "last.pt")
    state = checkpoints.load(tmp_path / "last.pt")
    second = build(Experiment.parse(TEXT % "resnet20"), "cpu", state)
    second.load_state_dict(state)
    assert second.parts.model.whiten.weight.any()  # type: ignore[union-attr, operator]
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())
    predictor = restore_predictor(whole.state_dict(), "cpu")
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    expected = whole.parts.model.eval()(whole.parts.pipeline.evaluate(images)).softmax(1)
    torch.testing.assert_close(predictor.outputs(images).float().softmax(1).cpu(), expected)


def test_pretrained_weights_want_images() -> None:
    text = "data: digits\nmodel: {name: resnet18, pretrained: true, whitening: {}}"
    with pytest.raises(ConfigError, match="pretrained weights want images"):
        Experiment.parse(text)


def test_the_published_network_for_94_percent() -> None:
    from dltrain.models import Model

    network = Model.parse("airbench94").make(ImageShape(3, 32, 32), Logits(10))  # type: ignore[attr-defined]
    first = network.network[0].first[0]
    identity = torch.zeros(24, 24, 3, 3)
    identity[range(24), range(24), 1, 1] = 1
    assert torch.equal(first.weight[:24], identity) and first.weight[24:].abs().max() < 0.1
    head = network.network[-1]
    assert head.weight.abs().max().item() == pytest.approx(1 / 16, rel=0.01) and head.bias is None  # 256 inputs
    features = torch.randn(2, 256)
    torch.testing.assert_close(head(features), features @ head.weight.T / 9)
    gains = [p for key, p in network.named_parameters() if p.ndim == 1 and key.endswith("weight")]
    assert len(gains) == 6 and not any(p.requires_grad for p in gains)
