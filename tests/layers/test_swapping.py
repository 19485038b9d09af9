"""Parts swapped from YAML: attention and initialization in our own networks."""

from __future__ import annotations

import pytest
import torch

from dltrain import ConfigError, EpochReport, Experiment, build
from dltrain.data.types import ImageShape
from dltrain.layers.attention import Attention
from dltrain.layers.initializations import Initialization
from dltrain.tasks.outputs import Logits

TEXT = """
data: {name: synthetic, examples: 60, classes: 3, shape: [3, 16, 16]}
model: %s
training: {epochs: 1, batch_size: 8, limit_batches: 2}
"""


def trained(model: str) -> torch.nn.Module:
    trainer = build(Experiment.parse(TEXT % model), "cpu")
    reports = [event for event in trainer.run() if isinstance(event, EpochReport)]
    assert torch.isfinite(torch.tensor(reports[-1].metrics["train/loss"]))
    return trainer.parts.model


@pytest.mark.parametrize("attention", Attention.all_names())
@pytest.mark.parametrize("model", ["convnet", "resnet20"])
def test_attention_trains_in_a_network(model: str, attention: str) -> None:
    trained(f"{{name: {model}, attention: {attention}}}")


def test_attention_stands_on_every_residual_branch() -> None:
    model = Experiment.parse(TEXT % "{name: resnet20, attention: squeeze_excitation}").model
    plain = Experiment.parse(TEXT % "resnet20").model
    shape = ImageShape(3, 16, 16)
    gates = {name for name in model.make(shape, Logits(3)).state_dict() if ".extra." in name}
    assert {name.split(".extra.")[0] for name in gates} == {f"{index}.norm2" for index in range(3, 12)}
    assert len(plain.make(shape, Logits(3)).state_dict()) + len(gates) == len(model.make(shape, Logits(3)).state_dict())


@pytest.mark.parametrize("initialization", Initialization.all_names())
def test_initialization_starts_a_network(initialization: str) -> None:
    text = TEXT % f"{{name: convnet, widths: [8, 8], initialization: {initialization}}}"
    refusals = {
        "zeros": "makes all units of a hidden layer equal", "constant": "makes all units of a hidden layer equal",
        "zero_gamma": "no residual branch", "fixup": "for networks without norms",
    }  # fmt: skip
    if initialization in refusals:
        with pytest.raises(ConfigError, match=refusals[initialization]):
            build(Experiment.parse(text), "cpu")
        return
    first, second = (build(Experiment.parse(text), "cpu").parts.model.state_dict() for _ in range(2))
    plain = build(Experiment.parse(TEXT % "{name: convnet, widths: [8, 8]}"), "cpu").parts.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], plain["0.weight"])


def test_initialization_and_pretrained_weights_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="would overwrite the pretrained weights"):
        Experiment.parse(TEXT % "{name: resnet18, pretrained: true, initialization: he_normal}")
