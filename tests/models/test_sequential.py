"""Networks written layer by layer: they equal the catalogue's, and what cannot follow is said at its layer."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch import nn

from dltrain import ConfigError, Experiment, build
from dltrain.data.types import ImageShape
from dltrain.models.base import Model
from dltrain.tasks.outputs import Logits

BY_HAND = {
    "lenet5": ("lenet5", (1, 28, 28)),
    "vgg11": ("vgg11", (3, 224, 224)),
    "nin": ("nin", (3, 224, 224)),
    "googlenet": ({"name": "googlenet", "norm": "batch_norm"}, (3, 96, 96)),
    "densenet": ("densenet_small", (1, 96, 96)),
}
"""The experiments, and the network of the catalogue that each one writes out."""


def network(model: Any, shape: tuple[int, int, int], classes: int = 10) -> nn.Module:
    section = model if isinstance(model, Model) else Model.parse(model)
    assert isinstance(section, Model)
    return section.make(ImageShape(*shape), Logits(classes))


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_written_by_hand_has_the_parameters_of_the_catalogues_network(name: str) -> None:
    other, shape = BY_HAND[name]
    experiment = Experiment.load(REPOSITORY / "experiments" / "by_hand" / f"{name}.yaml")
    with torch.device("meta"):
        ours, theirs = network(experiment.model, shape), network(other, shape)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "densenet"])
def test_with_the_same_weights_it_gives_the_same_logits(name: str) -> None:
    other, shape = BY_HAND[name]
    experiment = Experiment.load(REPOSITORY / "experiments" / "by_hand" / f"{name}.yaml")
    ours, theirs = network(experiment.model, shape).eval(), network(other, shape).eval()
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.data.copy_(yours.data)
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def layers(*entries: Any, **options: Any) -> dict[str, Any]:
    return {"name": "sequential", "layers": list(entries), **options}


@pytest.mark.parametrize(
    ("block", "maps"),
    [
        ({"name": "conv", "channels": 6, "kernel": 5, "padding": "same"}, (6, 16, 16)),
        ({"name": "conv", "channels": 8, "groups": 4, "stride": 2}, (8, 7, 7)),
        ({"name": "pool", "kernel": 3, "stride": 2, "ceil": True}, (4, 8, 8)),
        ({"name": "vgg_block", "convolutions": 2, "channels": 6}, (6, 8, 8)),
        ({"name": "nin_block", "channels": 6, "kernel": 3}, (6, 14, 14)),
        ({"name": "inception_block", "channels": [1, 2, 3, 4, 5, 6]}, (15, 16, 16)),
        ({"name": "residual_block", "channels": 4}, (4, 16, 16)),
        ({"name": "residual_block", "channels": 8, "stride": 2, "bottleneck": True}, (8, 8, 8)),
        ({"name": "dense_block", "layers": 3, "growth": 5}, (19, 16, 16)),
        ({"name": "transition", "compression": 0.5}, (2, 8, 8)),
        ({"name": "separable_conv", "channels": 6, "stride": 2}, (6, 8, 8)),
        ({"name": "shuffle_block", "channels": 16, "groups": 2, "stride": 2}, (16, 8, 8)),
        ({"name": "repeat", "times": 3, "layers": [{"name": "residual_block", "channels": 4}]}, (4, 16, 16)),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_block_puts_out_the_maps_that_its_formula_says(block: dict[str, Any], maps: tuple[int, int, int]) -> None:
    made = network(layers(block, "global_pool", "linear", norm="batch_norm"), (4, 16, 16), 3)
    first = made[0].eval()  # type: ignore[index, operator]
    assert tuple(first(torch.zeros(2, 4, 16, 16)).shape) == (2, *maps)
    assert tuple(made(torch.zeros(2, 4, 16, 16)).shape) == (2, 3)


def test_a_block_whose_branch_is_zero_is_its_activated_shortcut() -> None:
    made = network(layers({"name": "residual_block", "channels": 4}, "global_pool"), (4, 8, 8), 4)
    block = made[0]  # type: ignore[index]
    for parameter in block.residual.parameters():
        parameter.data.zero_()
    images = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(block(images), images.relu())


def test_a_channel_shuffle_of_g_and_then_of_its_counterpart_is_the_identity() -> None:
    images = torch.arange(12.0).view(1, 12, 1, 1)
    assert torch.equal(nn.ChannelShuffle(4)(nn.ChannelShuffle(3)(images)), images)


@pytest.mark.parametrize(
    ("entries", "line", "words"),
    [
        (["linear"], 1, "layer 1 (`linear`) takes vectors, and gets maps"),
        (["flatten", "{name: conv, channels: 4}"], 2, "layer 2 (`conv`) takes maps, and gets vectors"),
        (["{name: conv, channels: 5, groups: 2}", "global_pool"], 1, "layer 1 (`conv`) cannot work on 1 maps of 8x8"),
        (["{name: conv, channels: 5}", "flatten"], 2, "puts out a vector of 180, but the task wants 3 numbers"),
        (["{name: repeat, times: 2, layers: [linear]}"], 1, "layer 1 (`linear`) takes vectors"),
        (["{name: shuffle_block, channels: 10, stride: 2, groups: 3}", "global_pool"], 1, "3 groups must divide"),
    ],
)
def test_a_layer_that_cannot_follow_is_said_at_its_line(entries: list[str], line: int, words: str) -> None:
    listed = "".join(f"    - {entry}\n" for entry in entries)
    data = "{name: synthetic, examples: 30, classes: 3, shape: [1, 8, 8]}"
    text = f"data: {data}\ntraining: {{batch_size: 4}}\nmodel:\n  name: sequential\n  layers:\n"
    with pytest.raises(ConfigError) as caught:
        build(Experiment.parse(text + listed, "e.yaml"), "cpu")
    assert words in str(caught.value) and f"e.yaml:{5 + line}:" in str(caught.value)


def test_images_that_are_too_small_are_refused_with_the_least_size() -> None:
    pools = [{"name": "repeat", "times": 4, "layers": ["pool"]}, "global_pool", "linear"]
    with pytest.raises(ConfigError, match=r"16x16: set `data.size: 16` or more"):
        network(layers(*pools), (1, 8, 8), 3)


def test_it_trains_and_its_own_norms_and_activations_are_those_asked_for() -> None:
    text = """
        data: {name: synthetic, examples: 60, classes: 3, shape: [1, 8, 8]}
        model:
          name: sequential
          activation: gelu
          layers:
            - {name: conv, channels: 4, padding: same}
            - {name: norm, function: {name: group_norm, groups: 2}}
            - activation
            - {name: activation, function: tanh}
            - global_pool
            - norm
            - linear
        training: {epochs: 1, batch_size: 20}
    """
    trainer = build(Experiment.parse(textwrap.dedent(text), "e.yaml"), "cpu")
    list(trainer.run())
    trainer.close()
    kinds = [type(module).__name__ for module in trainer.parts.model.modules()]
    assert {"GroupNorm", "GELU", "Tanh", "BatchNorm2d"} <= set(kinds)
