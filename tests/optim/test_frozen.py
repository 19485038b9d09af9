"""Groups that wait, have ended or never learn: frozen is frozen, bit for bit, whatever else changes weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rationing import some
from torch import Tensor
from training import arrays_experiment, assert_same_state, built, trained

from dltrain import ConfigError, Experiment
from dltrain.planning.plan import plan

CONVNET = {"name": "convnet", "widths": [6, 8]}
"""Its modules: 0 and 4 convolutions, 1 and 5 batch norms, 11 the last layer."""
WAYS: dict[str, dict[str, Any]] = {"waits": {"after": 2}, "has ended": {"until": 1}, "is frozen": {"frozen": True}}
SGD: dict[str, Any] = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}


def options(optimizer: dict[str, Any], group: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "model": CONVNET, "augmentation": [], "schedule": {"name": "constant"},
        "optimizer": {**optimizer, "groups": [{"match": "[01].*", **group}]},
        "training": {"epochs": 3, "batch_size": 20}, **changes,
    }  # fmt: skip


def states(arrays: Path, **changes: Any) -> tuple[Any, list[dict[str, Tensor]]]:
    """The trainer and the tensors of its model at the start and after each epoch."""
    trainer = built(arrays_experiment(arrays, **changes), 1e9)

    def now() -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in trainer.parts.model.state_dict().items()}

    found = [now()]
    found += [now() for _ in trainer.run()]
    return trainer, found


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    return {name for name in first if torch.equal(first[name], second[name])}


OPTIMIZERS: list[dict[str, Any]] = [
    SGD, {"name": "adamw", "weight_decay": 0.1}, {"name": "muon", "normalize": True, "weight_decay": 0.1},
    {"name": "lamb"}, {"name": "adafactor"}, {"name": "schedule_free_sgd", "lr": 0.5},
    {"name": "pytorch_optimizer/prodigy", "lr": 1.0}, {**SGD, "sam": {"rho": 0.1}},
    {**SGD, "lookahead": {"steps": 2}},
]  # fmt: skip
OTHERS: list[dict[str, Any]] = [
    {"penalties": [{"name": "max_norm", "limit": 0.1}, {"name": "l1", "strength": 0.01}]},
    {"schedule": {"name": "one_cycle"}},
    {"training__accumulate": 2, "training__clip_norm": 0.1},
    {"training__average": {"name": "ema", "decay": 0.9}},
    {"training__average": {"name": "swa", "start": 0.0}},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", some(WAYS, 2))
@pytest.mark.parametrize(
    ("optimizer", "changes"), [*((o, {}) for o in OPTIMIZERS), *((SGD, c) for c in OTHERS)], ids=str
)
def test_frozen_weights_and_statistics_stay(
    optimizer: dict[str, Any], changes: dict[str, Any], way: str, arrays: Path
) -> None:
    trainer, (start, first, second, third) = states(arrays, **options(optimizer, WAYS[way], **changes))
    part = {name for name in start if name.startswith(("0.", "1."))}
    assert {"0.weight", "1.bias", "1.running_mean", "1.num_batches_tracked"} <= part
    others = set(start) - part
    between = {"waits": (start, second), "has ended": (first, third), "is frozen": (start, third)}[way]
    assert same(*between) == part, "these alone stay, and all of the others learn"
    if way != "is frozen":
        learning = {"waits": (second, third), "has ended": (start, first)}[way]
        assert not same(*learning) & (part | others)
    if way == "is frozen" and trainer.parts.average is not None:
        averaged = trainer.parts.average.model.state_dict()
        assert part <= same(start, averaged)


def test_frozen_gradients_do_not_count_in_the_norm_that_is_clipped(arrays: Path) -> None:
    """What learns moves by the rate times `clip_norm`, however large the gradient of what is frozen is."""
    for group in ({"after": 2}, {"frozen": True}):
        training = {"steps": 1, "batch_size": 20, "clip_norm": 0.01}
        if "after" in group:
            training = {"steps": 30, "batch_size": 20, "clip_norm": 0.01, "limit_batches": 1}
        trainer = built(arrays_experiment(arrays, **options({"name": "sgd", "lr": 1.0}, group, training=training)))
        before = [p.detach().clone() for p in trainer.parts.model.parameters()]
        next(iter(trainer.run()))
        after = trainer.parts.model.parameters()
        moved = sum(float((a - b).detach().square().sum()) for a, b in zip(after, before, strict=True)) ** 0.5
        assert trainer.step == 1 and moved == pytest.approx(0.01, rel=1e-3)


def test_a_frozen_norm_works_with_its_statistics(arrays: Path) -> None:
    """A frozen part is the same function in training as in evaluation."""
    trainer = built(arrays_experiment(arrays, **options(SGD, {"frozen": True})))
    model, seen = trainer.parts.model, []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))  # type: ignore[operator]
    next(iter(trainer.run()))
    inputs, outputs = seen[0]
    assert model[1].training  # outside a step nothing is different
    torch.testing.assert_close(outputs, model[1].eval()(inputs))  # type: ignore[operator]


def test_a_norm_of_which_something_learns_keeps_measuring(arrays: Path) -> None:
    changes = options(SGD, {}) | {"optimizer": {**SGD, "groups": [{"match": "1.weight", "frozen": True}]}}
    _, (start, first, *_) = states(arrays, **changes)
    assert same(start, first) == {"1.weight"}


@pytest.mark.parametrize("way", ["waits", "has ended", "is frozen"])
@pytest.mark.parametrize("step", [7, 13])
def test_a_training_with_frozen_groups_resumes_exactly(way: str, step: int, arrays: Path, tmp_path: Path) -> None:
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "lookahead": {"steps": 4}}
    group = {"waits": {"after": 1.5}, "has ended": {"until": 1.5}, "is frozen": {"frozen": True}}[way]
    changes = options(optimizer, group, penalties=[{"name": "max_norm", "limit": 0.5}])
    changes["training"] |= {"average": {"name": "ema", "decay": 0.9}, "clip_norm": 1.0}
    whole = trained(arrays_experiment(arrays, **changes))
    first = trained(arrays_experiment(arrays, **changes), until=step)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = built(arrays_experiment(arrays, **changes))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    list(second.run())
    assert_same_state(second.state_dict(), whole.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_a_group_waits_for_a_gradient_scaler_too(arrays: Path) -> None:
    changes = options({"name": "adam"}, {"after": 1}, training__precision="float16")
    trainer, (start, first, second, _) = states(arrays, **changes)
    assert trainer.parts.scaler.state_dict()["scale"] > 1
    assert "0.weight" in same(start, first) and "0.weight" not in same(first, second)


def test_a_frozen_group_is_reported_and_keeps_no_optimizer_state(arrays: Path) -> None:
    experiment = arrays_experiment(arrays, **options(SGD, {"frozen": True}))
    trainer = built(experiment)
    ours = {id(p) for name, p in trainer.parts.model.named_parameters() if name.startswith(("0.", "1."))}
    assert not any(id(p) in ours for group in trainer.parts.optimizer.param_groups for p in group["params"])
    assert trainer.summary["frozen"] == "174 of the 649 parameters never learn"
    assert sum(group["tensors"] for group in plan(experiment, "cpu")["groups"]) == 5


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"match": "0.*", "frozen": True, "lr": 0.1}], "a `frozen` group never learns, and `lr` would do nothing"),
        ([{"match": "0.*", "frozen": False}], "a group changes nothing without"),
        ([{"match": "0.*", "lr": 0}], "`lr` must be above 0; `frozen: true` says that the group never learns"),
        ([{"match": "0.*", "until": 0.0}], "`until` must be above 0; `frozen: true` says"),
    ],
)
def test_mistakes_of_frozen_groups(groups: list[dict[str, Any]], message: str) -> None:
    text = f"data: digits\nmodel: mlp\noptimizer: {{name: sgd, lr: 0.1, groups: {groups}}}"
    with pytest.raises(ConfigError) as raised:
        Experiment.parse(text.replace("True", "true").replace("False", "false"))
    assert message in str(raised.value) and ":3:" in str(raised.value)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"match": "*", "after": 1}], "nothing learns after epoch 0: all parameters wait or have ended"),
        ([{"match": "*.bias", "after": 2}, {"match": "*", "until": 1}], "nothing learns after epoch 1"),
        ([{"match": "*", "frozen": True}], "all its parameters are frozen"),
    ],
)
def test_a_time_in_which_nothing_learns_is_refused(groups: list[dict[str, Any]], message: str, arrays: Path) -> None:
    experiment = arrays_experiment(arrays, **options(SGD, {}) | {"optimizer": {**SGD, "groups": groups}})
    for start in (built, lambda e: plan(e, "cpu")):
        with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
            start(experiment)  # type: ignore[operator]


# -- `freeze` and `unfreeze_at`, the short way


def short(optimizer: dict[str, Any] = SGD, **changes: Any) -> dict[str, Any]:
    return {"model": CONVNET, "augmentation": [], "schedule": {"name": "constant"}, "optimizer": optimizer,
            "training": {"epochs": 3, "batch_size": 20}, **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("unfreeze", "long"),
    [(None, {"frozen": True}), ({"epochs": 2}, {"after": 2}), ({"steps": 10}, {"after": 2.0})],
    ids=["never", "epochs", "steps"],
)
def test_freeze_is_a_group_that_waits(unfreeze: Any, long: dict[str, Any], arrays: Path) -> None:
    """Tensors and the statistics of their norm are bitwise as they were, until they are unfrozen."""
    whole, found = states(arrays, **short(freeze=["0.*", "1.*"], unfreeze_at=unfreeze))
    assert whole.settings.steps_per_epoch == 5
    first = [name for name in found[0] if name.startswith(("0.", "1."))]
    assert len(first) == 6, "the norm's statistics and their count among them"
    for epoch in (1, 2):
        assert all(torch.equal(found[epoch][name], found[0][name]) for name in first)
        assert not any(torch.equal(found[epoch][name], found[0][name]) for name in ("4.weight", "5.running_mean"))
    assert [torch.equal(found[3][name], found[0][name]) for name in first] == [unfreeze is None] * 6
    group, _ = states(arrays, **options(SGD, long))
    assert_same_state(whole.parts.model.state_dict(), group.parts.model.state_dict())


@pytest.mark.parametrize("until", [9, 10, 12], ids=["before", "at", "after"])
def test_a_training_that_unfreezes_resumes_exactly(until: int, arrays: Path) -> None:
    groups = [{"match": "0.*", "lr_scale": 0.1}, {"match": "11.*", "until": 2.5}]
    how = short({"name": "adam", "lr": 0.01, "groups": groups}, freeze=["[01].*"], unfreeze_at={"steps": 10})
    experiment = arrays_experiment(arrays, **how)
    whole, first = trained(experiment), trained(experiment, until)
    second = built(experiment)
    second.load_state_dict(first.state_dict())
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())
    assert plan(experiment, "cpu")["frozen"] == whole.summary["frozen"] == "[01].* until 10 steps are done"
    rates = {group.get("lr_scale", 1.0): group.get("epochs") for group in whole.parts.optimizer.param_groups}
    assert rates[0.1] == (2.0, float("inf")), "the rate of its group, from then on"


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("freeze: [0.*, weigth]", "`weigth` in `freeze` matches no parameter of the model", 3),
        ("freeze: [1.wieght]", "did you mean `1.weight`?", 3),
        ("model: resnet18\nfreeze: [layr1.*]", "did you mean `layer1.*`?", 3),
        ("freeze: ['*']", "nothing is left to learn", 3),
        ("freeze: ['*']\nunfreeze_at: {epochs: 1}", "nothing learns after epoch 0", 3),
        ("freeze: [0.*]\nunfreeze_at: {epochs: 2}", "nothing would be unfrozen: the training has 2 epochs", 4),
        ("freeze: [0.*]\nunfreeze_at: {steps: 1000}", "nothing would be unfrozen: the training has", 4),
        ("unfreeze_at: {epochs: 1}", "there is nothing to unfreeze", 3),
        ("freeze: [0.*]\nunfreeze_at: {epochs: 1, steps: 3}", "`epochs` and `steps` are both given", 4),
        ("freeze: [0.*]\nunfreeze_at: {steps: 1}\noptimizer: lbfgs", "moves all weights together", 4),
    ],
)  # fmt: skip
def test_what_cannot_be_frozen_or_unfrozen_is_said_at_its_key(text: str, words: str, line: int) -> None:
    model = "" if "model:" in text else "model: {name: convnet, widths: [4]}\n"
    text = f"data: digits\n{model}{text}\ntraining: {{epochs: 2}}\n"
    with pytest.raises(ConfigError) as caught:
        plan(Experiment.parse(text, "e.yaml"), "cpu")
    assert words in str(caught.value)
    assert [d.where.line for d in caught.value.diagnostics if d.where is not None] == [line]
