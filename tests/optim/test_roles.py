"""What decays, what Muon takes, and which layer is which: in transformers and networks of several libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rationing import some
from torch import nn
from training import arrays_experiment, built

from dltrain import Experiment
from dltrain.data.types import ImageShape
from dltrain.models import Model
from dltrain.optim import Optimizer
from dltrain.optim.impl.groups import parameter_groups
from dltrain.tasks.outputs import Logits

NOT_WEIGHTS = (
    "pos_embed", "cls_token", "class_token", "dist_token", "relative_position_bias_table", "attention_biases",
    "layer_scale", "gamma", "logit_scale", "temperature", "rel_pos", "reg_token", "cpb_mlp",
)  # fmt: skip
"""What the networks below call that which is added or scales."""
TRANSFORMERS = (
    "torchvision/vit_b_16", "torchvision/swin_t", "torchvision/swin_v2_t", "torchvision/maxvit_t",
    "torchvision/convnext_tiny", "timm/deit3_small_patch16_224", "timm/deit_tiny_distilled_patch16_224",
    "timm/swin_tiny_patch4_window7_224", "timm/swinv2_tiny_window8_256", "timm/beit_base_patch16_224",
    "timm/levit_128s", "timm/xcit_nano_12_p16_224", "timm/vit_tiny_patch16_224", "timm/samvit_base_patch16_224",
)  # fmt: skip


def network(value: Any, size: int = 224, classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        section = Model.parse(value)
        return section.make(ImageShape(3, size, size), Logits(classes))  # type: ignore[attr-defined, no-any-return]


def groups(model: nn.Module, value: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The optimizer's group of each parameter, by its name."""
    section = Optimizer.parse(value)
    assert isinstance(section, Optimizer)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in parameter_groups(model, section) for p in group["params"]}


@pytest.mark.parametrize("name", some(TRANSFORMERS, 2))
def test_only_weights_of_layers_decay(name: str) -> None:
    """timm's networks list a layer of two kinds themselves: that of continuous positions, and of XCiT's embedding."""
    model = network(name, 256 if "256" in name else 224)
    found = groups(model, {"name": "adamw", "weight_decay": 0.05, "no_decay": ["bias", "norm"]})
    decaying = {key for key, group in found.items() if group["weight_decay"] > 0}
    wrong = {key for key in decaying if any(word in key for word in NOT_WEIGHTS if word != "cpb_mlp" or "timm" in name)}
    assert not wrong
    layers = {
        f"{path}.{key}"
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention)
        for key in ("weight", "in_proj_weight")
        if getattr(module, key, None) is not None
        and not ("timm" in name and ("cpb_mlp" in path or path.startswith("pos_embed.")))
    }
    assert decaying == layers


def test_vectors_are_spared_by_role_and_not_by_name() -> None:
    """In a network that nobody has seen: a token, a table that is looked up, a scale for each channel."""

    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = nn.Parameter(torch.zeros(1, 3, 8))
            self.lookup = nn.Parameter(torch.zeros(9, 2))
            self.register_buffer("where", torch.zeros(4, 4, dtype=torch.int64))
            self.strength = nn.Parameter(torch.ones(8, 1, 1))
            self.gate = nn.Parameter(torch.zeros(8))
            self.factor = nn.Parameter(torch.ones(()))
            self.layer, self.narrow, self.head = nn.Linear(8, 8), nn.Conv2d(8, 1, 3), nn.Linear(8, 1)

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.mix = Strange(), nn.Parameter(torch.zeros(8, 8))

    found = groups(Mixing(), {"name": "sgd", "lr": 0.1, "weight_decay": 0.1, "no_decay": ["bias", "norm"]})
    weights = {"inside.layer.weight", "inside.narrow.weight", "inside.head.weight", "mix"}
    assert {key for key, group in found.items() if group["weight_decay"] > 0} == weights
    found = groups(Mixing(), {"name": "sgd", "lr": 0.1, "weight_decay": 0.1, "no_decay": ["norm"]})
    spared = {key for key, group in found.items() if group["weight_decay"] == 0}
    assert spared == {"inside.strength", "inside.gate", "inside.factor"}


def test_what_spares_from_decay_spares_from_a_penalty() -> None:
    from dltrain.optim.impl.penalties import Penalties
    from dltrain.optim.penalties import L2

    model = network("torchvision/swin_t")
    held = Penalties(model, [L2(strength=1.0)])._weights[0][1]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert held and not any("table" in names[id(weight)] for weight in held)


@pytest.mark.parametrize(
    ("name", "size", "last"),
    [
        ("mlp", 32, {"4.weight"}), ("resnet20", 32, {"14.weight"}), ("vgg11_cifar", 32, {"40.weight"}),
        ("squeezenet1_1", 64, {"classifier.1.weight"}), ("softmax_regression", 32, {"1.weight"}),
        ("torchvision/vit_b_16", 224, {"heads.head.weight"}), ("timm/test_vit", 160, {"head.weight"}),
        ("timm/deit_tiny_distilled_patch16_224", 224, {"head.weight", "head_dist.weight"}),
        ({"name": "resnet18", "whitening": {"kernel": 2}}, 32, {"network.fc.weight"}),
        ({"name": "resnet20", "norm": "weight_norm"}, 32, {"14.weight"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else str(value),  # sets have no order
)  # fmt: skip
def test_muon_takes_hidden_matrices_only(name: Any, size: int, last: set[str]) -> None:
    model = network(name, size)
    found = groups(model, {"name": "muon"})
    parameters = dict(model.named_parameters())
    others = {key for key, group in found.items() if not group["matrix"] and parameters[key].ndim > 1}
    assert last <= others
    tokens = ("pos_embed", "token", "relative_position")
    rest = others - last
    assert all(any(word in key for word in tokens) or parameters[key].numel() == len(parameters[key]) for key in rest)
    hidden = [key for key, group in found.items() if group["matrix"]]
    assert len(hidden) > 3 or name in ("mlp", "softmax_regression")
    more = groups(model, {"name": "muon", "adamw": ["*"]})
    assert not any(group["matrix"] for group in more.values())


def test_the_last_layer_is_trained_by_the_second_optimizer(arrays: Any) -> None:
    """AdamW moves each weight that has a gradient by its rate in the first step; Muon moves a matrix as one."""
    model = {"name": "mlp", "hidden": [16, 16]}
    trainer = built(arrays_experiment(
        arrays, model=model, augmentation=[], optimizer={"name": "muon", "lr": 0.1, "adamw_scale": 0.05},
        schedule="constant", training={"steps": 1, "batch_size": 32}, loss="cross_entropy",
    ))  # fmt: skip
    before = {key: p.detach().clone() for key, p in trainer.parts.model.named_parameters()}
    list(trainer.run())
    moved = {key: (p.detach() - before[key]).abs() for key, p in trainer.parts.model.named_parameters()}
    *hidden, last = [key for key in before if key.endswith("weight")]
    told = moved[last][moved[last] > 0]  # behind a unit that is 0 for all examples there is no gradient
    torch.testing.assert_close(told, torch.full_like(told, 0.005), rtol=1e-2, atol=0)
    assert len(told) > 24
    for key in hidden:
        assert torch.linalg.svdvals(moved[key]).max() > 0.05


def test_layer_decay_gives_each_block_of_a_transformer_its_rate() -> None:
    found = groups(network("torchvision/vit_b_16"), {"name": "adamw", "lr": 0.1, "layer_decay": 0.5})
    scales = {key: group.get("lr_scale", 1.0) for key, group in found.items()}
    assert scales["heads.head.weight"] == 1.0 and scales["encoder.ln.weight"] == 0.5
    for block in range(12):
        own = {scales[key] for key in scales if f"encoder_layer_{block}." in key}
        assert own == {0.5 ** (12 - block)}
    assert scales["conv_proj.weight"] == scales["class_token"] == 0.5**13


def test_layer_decay_sees_the_layers_behind_a_whitening_one() -> None:
    model = network({"name": "resnet18", "whitening": {"kernel": 2}}, 32)
    found = groups(model, {"name": "adamw", "lr": 0.1, "layer_decay": 0.5})
    scales = {key: group.get("lr_scale", 1.0) for key, group in found.items()}
    assert scales["network.fc.weight"] == 1.0 and scales["network.layer4.1.conv1.weight"] == 0.5
    assert scales["network.conv1.weight"] == 0.5**9 and scales["whiten.bias"] == 0.5**10


def test_an_explicit_rate_is_the_peak_under_layer_decay_too() -> None:
    text = """
data: digits
model: {name: mlp, hidden: [8, 8]}
optimizer:
  {name: sgd, lr: 0.1, layer_decay: 0.5, groups: [{match: 1.*, lr: 0.04}, {match: 4.weight, lr_scale: 3.0}]}
schedule: constant
training: {steps: 1, batch_size: 32}
"""
    trainer = built(Experiment.parse(text))
    list(trainer.run())
    names = {id(p): key for key, p in trainer.parts.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in trainer.parts.optimizer.param_groups for p in group["params"]}
    expected = {"1.weight": 0.04, "1.bias": 0.04, "4.weight": 0.15, "4.bias": 0.05, "7.weight": 0.1, "7.bias": 0.1}
    assert rates == pytest.approx(expected)
