"""Penalties: the contract over the catalogue, and what they do in a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from training import arrays_experiment, assert_same_state, built, trained

from dltrain.config import ConfigError
from dltrain.optim.impl.penalties import Penalties
from dltrain.optim.penalties import MaxNorm, Penalty
from dltrain.testing import PenaltyContract

NAMES = Penalty.all_names()
PLAIN: dict[str, Any] = {
    "augmentation": [], "training__accumulate": 1, "training__clip_norm": None, "training__average": None,
    "training__early_stopping": None, "schedule": {"name": "constant"}, "training__epochs": 2,
    "optimizer": {"name": "sgd", "lr": 0.05},
}  # fmt: skip


def parse(name: str, **options: Any) -> Penalty:
    entry = Penalty.lookup(name)
    assert entry is not None and issubclass(entry, Penalty)
    section = Penalty.parse({"name": name, **entry.example, **options})
    assert isinstance(section, Penalty)
    return section


class TestPenalties(PenaltyContract):
    names = NAMES


def test_gradients() -> None:
    weight = torch.tensor([[3.0, -4.0, 0.0]], requires_grad=True)
    for name, expected in (("l1", [1, -1, 0]), ("l2", [3, -4, 0]), ("elastic_net", [1.6, -1.9, 0.0])):
        (gradient,) = torch.autograd.grad(parse(name, **{"ratio": 0.7} if "net" in name else {}).value(weight), weight)
        torch.testing.assert_close(gradient, torch.tensor([expected]).float())
    for ratio, other in ((1.0, "l1"), (0.0, "l2")):
        assert parse("elastic_net", ratio=ratio).value(weight) == parse(other).value(weight)


def test_bound_scales_units_and_only_the_long_ones() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    with torch.no_grad():
        conv.weight[0] *= 0.01
    before = conv.weight.detach().clone()
    Penalties(conv, [MaxNorm(limit=0.5)]).bound()
    norms = conv.weight.flatten(1).norm(dim=1)
    assert torch.equal(conv.weight[0], before[0])
    torch.testing.assert_close(norms[1:], torch.full((3,), 0.5), rtol=1e-5, atol=0)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_l2_is_weight_decay_with_sgd(arrays: Path) -> None:
    l2 = trained(arrays_experiment(arrays, **PLAIN, penalties=[{"name": "l2", "strength": 0.1}]))
    decay = {"name": "sgd", "lr": 0.05, "weight_decay": 0.1, "no_decay": ["bias", "norm"]}
    other = trained(arrays_experiment(arrays, **{**PLAIN, "optimizer": decay}))
    for a, b in zip(l2.parts.model.parameters(), other.parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert l2.history[-1]["train/loss"] == pytest.approx(other.history[-1]["train/loss"], rel=1e-5)


def test_l2_is_not_decoupled_decay_with_adam(arrays: Path) -> None:
    plain = {**PLAIN, "training__epochs": 1}
    adam = {**plain, "optimizer": {"name": "adam", "lr": 0.01}, "penalties": [{"name": "l2", "strength": 0.1}]}
    decay = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "no_decay": ["bias", "norm"]}
    l2, decoupled = (trained(arrays_experiment(arrays, **changes)) for changes in (adam, {**plain, "optimizer": decay}))
    one, other = (next(trainer.parts.model.parameters()) for trainer in (l2, decoupled))
    assert (one - other).abs().max() > 0.01


def test_l1_finds_the_soft_threshold() -> None:
    """The minimum of (w - a)^2 / 2 + strength |w| is sign(a) max(|a| - strength, 0)."""
    a = torch.tensor([[3.0, -2.0, 0.5, -0.1, 1.0]]).double()
    weight = torch.zeros_like(a).requires_grad_()
    section = parse("l1", strength=0.8)
    for step in range(2000):
        (gradient,) = torch.autograd.grad(((weight - a).square() / 2).sum() + section.value(weight), weight)
        with torch.no_grad():
            weight -= gradient / (1 + step)
    torch.testing.assert_close(weight.detach(), a.sign() * (a.abs() - 0.8).clamp_min(0), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_with_penalties_continues_exactly(name: str, arrays: Path) -> None:
    options = {key: value * 0.1 for key, value in parse(name).example.items()}
    experiment = arrays_experiment(arrays, penalties=[{"name": name, **options}], training__epochs=2)
    whole, bare = trained(experiment), trained(experiment.override("penalties", []))
    weights = [next(trainer.parts.model.parameters()) for trainer in (whole, bare)]
    assert not torch.equal(*weights)
    state = trained(experiment, until=3).state_dict()
    again = built(experiment)
    again.load_state_dict(state)
    list(again.run())
    assert_same_state(again.state_dict(), whole.state_dict())


def test_mistakes() -> None:
    with pytest.raises(ValidationError, match="strength"):
        Penalty.parse("l1")
    with pytest.raises(ValidationError, match="did you mean `norm`"):
        parse("l1", exempt=["norms"])
    with pytest.raises(ConfigError, match=r"`fc\.\*` in `penalties.0.exempt` matches no parameter"):
        Penalties(nn.Linear(2, 2), [parse("l1", exempt=["fc.*"])])
