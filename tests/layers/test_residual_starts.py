"""Starts in which each residual block is its shortcut: a gain of 0, and Fixup."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rationing import some
from torch import Tensor, nn

from dltrain import ConfigError, Experiment, build

TEXT = """
data: {name: synthetic, examples: 60, classes: 3, shape: [3, 32, 32]}
model: %s
training: {epochs: 1, batch_size: 8, limit_batches: 2, precision: float32}
"""
RESIDUAL = ["resnet20", "resnet18", "timm/resnet18", "torchvision/resnet50", "mobilenet_v2"]


def started(model: str) -> nn.Module:
    return build(Experiment.parse(TEXT % model), "cpu").parts.model


def branches(network: nn.Module, images: Tensor) -> dict[str, float]:
    """The greatest value that each residual branch adds, by block, in training mode."""
    from dltrain.data.types import ImageShape
    from dltrain.layers.impl import sites
    from dltrain.layers.impl.probe import native_probe

    found: dict[str, float] = {}
    probe = native_probe(network, ImageShape(*images.shape[1:]))
    ends = {end for block in sites.blocks(probe) if (end := sites.branch_end(probe, block))}
    for end in ends:

        def note(module: nn.Module, inputs: Any, output: Tensor, end: str = end) -> None:
            found[end] = output.detach().abs().max().item()

        network.get_submodule(end).register_forward_hook(note)
    network(images)
    return found


@pytest.mark.parametrize("name", some(RESIDUAL, 2))
def test_branches_with_a_gain_of_zero_add_nothing(name: str) -> None:
    images = torch.randn(4, 3, 32, 32)
    if name == "resnet20":
        assert min(branches(started(name), images).values()) > 0
    values = branches(started(f"{{name: {name}, initialization: zero_gamma}}"), images)
    assert len(values) >= 8 and not any(values.values())


@pytest.mark.parametrize("name", some([*RESIDUAL, "preact_resnet20", "preact_resnet18"], 3))
def test_fixup_starts_with_identities_and_uniform_logits(name: str) -> None:
    network, images = started(f"{{name: {name}, initialization: fixup}}"), torch.randn(4, 3, 32, 32)
    assert not any("BatchNorm" in type(module).__name__ for module in network.modules())
    values = branches(network, images)
    assert len(values) >= 8 and not any(values.values())
    logits = network(images)
    assert not logits.any()
    F.cross_entropy(logits, torch.arange(4) % 3).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_fixup_has_the_papers_scalars_and_scales() -> None:
    network = started("{name: resnet20, initialization: fixup}")
    scalars = {key: p for key, p in network.named_parameters() if p.numel() == 1 and not key.endswith("weight")}
    assert sum(key.endswith("scale") for key in scalars) == 9  # one for each block
    first = network.get_submodule("3.convolution1.inner")
    assert first.weight.std().item() == pytest.approx((2 / 144) ** 0.5 * 9 ** (-1 / 2), rel=0.05)  # type: ignore[union-attr, operator]
    deep = started('{name: "torchvision/resnet50", initialization: fixup}').get_submodule("layer1.1.conv1.inner")
    assert deep.weight.std().item() == pytest.approx((2 / 256) ** 0.5 * 16 ** (-1 / 4), rel=0.05)  # type: ignore[union-attr, operator]


def test_what_has_no_branches_or_norms_is_refused() -> None:
    with pytest.raises(ConfigError, match="no residual branch of the network ends in a norm with gains"):
        started("{name: preact_resnet20, initialization: zero_gamma}")
    with pytest.raises(ConfigError, match="the network has no residual branches that are chains of layers"):
        started("{name: convnet, norm: null, initialization: fixup}")
    with pytest.raises(ConfigError, match="is for networks without norms: leave `norm` out"):
        started("{name: resnet20, initialization: fixup, norm: group_norm}")


def test_fixup_trains() -> None:
    trainer = build(Experiment.parse(TEXT % "{name: resnet20, initialization: fixup}"), "cpu")
    for _ in trainer.run():
        pass
    assert all(p.isfinite().all() for p in trainer.parts.model.parameters())
