"""`dltrain plan`: what a training will do and cost, against what torch does when it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import REPOSITORY
from rationing import only, some
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from typer.testing import CliRunner

from dltrain import Experiment, build
from dltrain.cli import app
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.data.types import ImageShape
from dltrain.engine.decisions import count_multiply_adds
from dltrain.layers.impl.probe import probe
from dltrain.models.impl.fitting import refusal
from dltrain.planning.network import measure
from dltrain.planning.plan import optimizer_bytes, plan
from dltrain.planning.text import plot, render
from dltrain.tasks.outputs import Logits

SYNTHETIC = {"name": "synthetic", "examples": 100, "classes": 10}


def experiment(**sections: Any) -> Experiment:
    """An experiment on 80 synthetic training images; `training` adds to 2 epochs in batches of 16."""
    training = {"epochs": 2, "batch_size": 16, **sections.pop("training", {})}
    document = {"data": {**SYNTHETIC, "validation": 0}, "model": "convnet", **sections, "training": training}
    return Experiment.parse(yaml.safe_dump(document), "tiny")


def planned(*arguments: str) -> dict[str, Any]:
    """What `dltrain plan --json` prints."""
    result = CliRunner().invoke(app, ["plan", *arguments, "--json", "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


# -- the network


def kept_bytes(network: nn.Module, images: Tensor, dtype: torch.dtype) -> int:
    """What a real training forward keeps for the backward, by the addresses of its memory."""
    known = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (address := tensor.untyped_storage().data_ptr()) not in known:
            kept.setdefault(address, tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = network.train()(images)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


MODELS: list[Any] = [
    "mlp", {"name": "convnet", "dropout": 0.2}, "lenet5", "resnet20", {"name": "resnet18", "norm": "group_norm"},
    "densenet_small", "timm/test_vit",
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model", only(["mlp", "lenet5", "resnet20"], MODELS))
def test_a_network_costs_what_a_real_forward_costs(model: Any, dtype: torch.dtype) -> None:
    shape = ImageShape(3, 160, 160) if "vit" in str(model) else ImageShape(3, 32, 32)
    network = experiment(model=model).model.make(shape, Logits(10))
    found = measure(network, shape, 4, dtype)
    real = kept_bytes(network, torch.rand(4, shape.channels, shape.height, shape.width), dtype)
    assert found.activation_bytes == pytest.approx(real, rel=0.01 if dtype == torch.bfloat16 else 0)
    assert found.multiply_adds == count_multiply_adds(network, shape)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("depth", some([2, 1, 9, None], 2))
def test_the_rows_add_up_to_the_network(model: Any, depth: int | None) -> None:
    shape = ImageShape(3, 160, 160) if "vit" in str(model) else ImageShape(3, 32, 32)
    with torch.device("meta"):
        network = experiment(model=model).model.make(shape, Logits(10))
    found = measure(network, shape, 2)
    rows = found.layers(depth)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in network.parameters())
    assert sum(row.multiply_adds for row in rows) == found.multiply_adds
    assert len({row.name for row in rows}) == len(rows)
    assert rows[-1].output == (10,)


class Shared(nn.Module):
    """One layer under two names that is called twice, a weight of two owners, and a product outside any module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.first.weight
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.first(x.flatten(1)))
        return x @ x.T @ self.tied(x)


def test_shared_modules_and_parameters_count_once() -> None:
    found = measure(Shared(), ImageShape(1, 2, 3), 2)
    rows = {row.name: row for row in found.layers()}
    assert {name: row.parameters for name, row in rows.items()} == {
        "(network)": 0,
        "first": 42,
        "tied": 0,
        "unused": 12,
    }
    assert rows["first"].multiply_adds == 72
    assert rows["tied"].multiply_adds == 36
    assert rows["unused"].output is None
    assert sum(row.multiply_adds for row in rows.values()) == found.multiply_adds == 72 + 36 + 24


@pytest.mark.parametrize("look", [refusal, probe, lambda network, shape: measure(network, shape, 2)])
def test_looking_at_a_network_leaves_shared_weights(
    look: Callable[[nn.Module, ImageShape], Any],
) -> None:
    network = Shared()
    weight = network.first.weight
    look(network, ImageShape(1, 2, 3))
    assert network.first.weight is network.again.weight is network.tied.weight is weight
    assert not weight.is_meta


class Looks(nn.Module):
    """A network whose forward asks for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1))
        return y * 2 if y.sum().item() > 0 else y


def test_a_network_that_looks_at_numbers_is_measured_with_numbers() -> None:
    found = measure(Looks(), ImageShape(1, 2, 2), 10)
    assert found.activation_bytes == 10 * 4 * 4
    assert found.multiply_adds == 8


def test_measuring_leaves_no_trace() -> None:
    network = experiment().model.make(ImageShape(3, 32, 32), Logits(10)).eval()
    before, drawn = {key: value.clone() for key, value in network.state_dict().items()}, torch.get_rng_state()
    measure(network, ImageShape(3, 32, 32), 4)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())
    assert not any(module.training or module._forward_hooks for module in network.modules())


# -- the rest of the memory


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "lr": 0.1}, {"name": "sgd", "lr": 0.1, "momentum": 0.9}, {"name": "adamw", "lr": 0.001},
        {"name": "rmsprop", "lr": 0.01}, {"name": "adafactor", "lr": 0.01}, {"name": "muon", "lr": 0.01},
        {"name": "pytorch_optimizer/lion", "lr": 0.001}, {"name": "pytorch_optimizer/prodigy", "lr": 1.0},
    ],
    ids=lambda optimizer: optimizer["name"],
)  # fmt: skip
def test_memory_is_what_a_training_holds(optimizer: dict[str, Any]) -> None:
    tiny = experiment(optimizer=optimizer, training={"average": "ema", "batch_size": 80, "epochs": 1})
    memory = plan(tiny, "cpu")["memory_bytes"]
    trainer = build(tiny, "cpu")
    parts = trainer.parts
    for _ in trainer.run():
        pass
    state = [v for s in parts.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    parameters = sum(p.nbytes for p in parts.model.parameters())
    assert memory["optimizer"] == sum(tensor.nbytes for tensor in state)
    assert memory["parameters"] == memory["gradients"] == parameters
    assert memory["average"] == memory["parameters"] + memory["buffers"]
    assert memory["data"] == parts.train.inputs.nbytes  # type: ignore[attr-defined]
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")


def test_memory_of_what_stands_beside_the_optimizer() -> None:
    tiny = experiment(optimizer={"name": "sgd", "lr": 0.1, "lookahead": {}, "sam": {}})
    memory, parts = plan(tiny, "cpu")["memory_bytes"], build(tiny, "cpu").parts
    assert memory["lookahead"] == sum(slow.nbytes for slow in parts.after_step["lookahead"].state_dict().values())
    assert memory["sam"] == memory["average"] == memory["parameters"] + memory["buffers"]


def test_accumulating_keeps_less_for_the_backward() -> None:
    options: Any = ({"accumulate": n, "precision": "float32"} for n in (1, 4))
    whole, parts = (plan(experiment(training=o), "cpu")["memory_bytes"] for o in options)
    assert parts["activations"] == pytest.approx(whole["activations"] / 4, rel=0.01)
    assert parts["data"] == whole["data"]


def test_reduced_precision_keeps_less_for_the_backward() -> None:
    full, low = (plan(experiment(training={"precision": p}), "cpu")["memory_bytes"] for p in ("float32", "bfloat16"))
    assert low["activations"] < 0.8 * full["activations"]


def test_an_optimizer_too_large_to_try_is_taken_for_adam() -> None:
    tiny = experiment(optimizer={"name": "adafactor", "lr": 0.01})
    huge = nn.Parameter(torch.empty(6000, 10000, device="meta"))
    assert optimizer_bytes(tiny, [{"params": [huge], "weight_decay": 0.0}]) == 2 * huge.nbytes


# -- the whole plan


def test_a_plan_is_what_the_training_is() -> None:
    tiny = experiment(
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "no_decay": ["bias", "norm"],
                   "groups": [{"match": "0.*", "lr_scale": 0.5}]},
        schedule={"name": "one_cycle"}, training={"epochs": 2.5},
    )  # fmt: skip
    found, trainer = plan(tiny, "cpu"), build(tiny, "cpu")
    assert (found["steps"], found["steps_per_epoch"], found["epochs"]) == (12, 5, 3)
    assert (trainer.settings.total_steps, trainer.settings.steps_per_epoch, trainer.settings.epochs) == (12, 5, 3)
    assert found["learning_rate"] == [[step, trainer.parts.learning_rate(step)] for step in range(12)]
    momentum = trainer.parts.momentum
    assert momentum is not None
    assert found["momentum"] == [[step, momentum(step)] for step in range(12)]
    groups = [
        {"tensors": len(g["params"]), "parameters": sum(p.numel() for p in g["params"]),
         "weight_decay": g["weight_decay"], "lr": 0.1 * g.get("lr_scale", 1.0)}
        for g in trainer.parts.optimizer.param_groups
    ]  # fmt: skip
    assert found["groups"] == groups
    assert {group["lr"] for group in groups} == {0.1, 0.05}
    assert found["decisions"] == trainer.about["decisions"]
    assert found["examples"] == {"train": 80, "test": 20}
    assert (
        found["parameters"] == found["trainable_parameters"] == sum(p.numel() for p in trainer.parts.model.parameters())
    )


def test_curves_have_200_samples_at_most() -> None:
    found = plan(experiment(training={"epochs": 1000}, schedule={"name": "cosine", "warmup": {"epochs": 2}}), "cpu")
    steps = [step for step, _ in found["learning_rate"]]
    assert len(steps) == 200
    assert (steps[0], steps[-1]) == (0, 4999)
    assert found["warmup_steps"] == 10


def test_a_schedule_that_follows_results_says_so() -> None:
    found = plan(experiment(data={**SYNTHETIC, "validation": 0.2}, schedule="reduce_on_plateau"), "cpu")
    assert found["follows_results"]
    assert "when the training stalls" in render(found)


def test_auxiliary_heads_are_in_the_table_and_not_in_the_decisions() -> None:
    data = {**SYNTHETIC, "shape": [3, 64, 64], "validation": 0}
    tiny = experiment(data=data, model={"name": "torchvision/googlenet", "auxiliary": 0.3})
    found = plan(tiny, "cpu")
    network = tiny.model.make(ImageShape(3, 64, 64), Logits(10))
    once = count_multiply_adds(network, ImageShape(3, 64, 64))
    assert found["multiply_adds"] == sum(layer["multiply_adds"] for layer in found["layers"]) > once
    work = 3 * once * found["steps"] * found["batch_size"]
    assert f"training is too short to repay it: {work:.1e} of" in found["decisions"]["compile"]["reason"]


def test_the_adaptation_is_told() -> None:
    found = plan(experiment(model={"name": "resnet18", "norm": "group_norm"}), "cpu")
    assert found["adaptation"]["norm"]["what"] == "group_norm"
    assert "group_norm in 20 places" in render(found)


def test_the_largest_networks_are_planned_without_weights() -> None:
    data = {**SYNTHETIC, "examples": 50, "shape": [3, 224, 224]}
    found = plan(experiment(model="vgg16", data={**data, "validation": 0}), "cpu")
    assert found["parameters"] == 134_301_514
    assert found["memory_bytes"]["gradients"] == 4 * found["parameters"]


# -- the command


@pytest.mark.parametrize("columns", [80, 120])
def test_the_text_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    file = str(REPOSITORY / "experiments/digits.yaml")
    result = CliRunner().invoke(app, ["plan", file, "model=timm/test_efficientnet", "data.size=32"])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= columns
    for title in ("layers", "learning rate", "groups of sgd", "memory", "decided", "warnings"):
        assert f"\n{title}" in result.stdout


def test_the_command_prints_json() -> None:
    found = planned(str(REPOSITORY / "experiments/digits.yaml"), "training.epochs=2")
    assert set(found) >= {
        "parameters", "trainable_parameters", "multiply_adds", "layers", "steps", "steps_per_epoch", "epochs",
        "batch_size", "memory_bytes", "learning_rate", "groups", "decisions", "adaptation", "warnings",
    }  # fmt: skip
    assert set(found["layers"][0]) == {"name", "type", "output", "parameters", "multiply_adds"}
    assert found["epochs"] == 2


def test_depth_opens_the_table() -> None:
    file = str(REPOSITORY / "experiments/digits.yaml")
    rows = [len(planned(file, "model=resnet20", "--depth", str(depth))["layers"]) for depth in (1, 2)]
    assert rows == sorted(set(rows))


def test_data_that_is_not_there_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("data: {name: cifar10, root: nowhere}\nmodel: resnet20\n")
    result = CliRunner().invoke(app, ["plan", str(file)])
    assert result.exit_code == 2
    assert "data set `cifar10` is not in" in result.stderr
    assert "data=synthetic" in result.stderr
    assert "`dltrain fit` would download it" in result.stderr
    assert "set `download: true`" not in result.stderr
    assert "set `download: true`" in CliRunner().invoke(app, ["plan", str(file), "data.download=false"]).stderr
    assert result.stdout == ""
    assert planned(str(file), "data=synthetic")["data"] == "synthetic"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=resnet19"], "did you mean `resnet18`?"), (["training.batch_size=5000"], "larger than the training"),
        (["model=vgg16"], "cannot take images"), (["optimizer.no_decay=[head.*]"], "matches no parameter"),
        (["penalties=[{name: l1, strength: 0.1, exempt: [head.*]}]"], "matches no parameter"),
        (["schedule.warmup={epochs: 99}"], "the whole training only"), (["--device", "cuda:77"], "there is no device"),
        (["--depth", "0"], "depth"), (["--plugin", "nowhere.py"], "nowhere.py"),
    ],
)  # fmt: skip
def test_a_wrong_experiment_exits_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["plan", str(REPOSITORY / "experiments/digits.yaml"), *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_curve_is_drawn_from_zero_to_its_peak() -> None:
    lines = list(plot([0.0, 0.5, 1.0], 3, 20))
    assert lines[0].startswith("1 │")
    assert lines[0].endswith("█")
    assert lines[-2].startswith("0 └───")
    assert lines[-1].rstrip().endswith("step 3")
    assert max(map(len, lines)) <= 20
    assert list(plot([0.0, 0.0], 2, 20))


# -- fit says it too


def test_fit_writes_the_same_plan_and_says_its_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = experiment(
        model={"name": "resnet18", "norm": "group_norm"}, augmentation=["horizontal_flip"],
        optimizer={"name": "adamw", "lr": 0.001, "weight_decay": 0.1}, training={"epochs": 1, "limit_batches": 1},
    )  # fmt: skip
    code, run = fit(tiny, None, "cpu", Display(), runs=tmp_path)
    assert code == 0
    assert json.loads((run.path / "plan.json").read_text()) == json.loads(json.dumps(plan(tiny, "cpu")))
    told = capsys.readouterr().err
    assert "warning: weight decay 0.1 also shrinks" in told
    assert re.search(r"model\.norm +group_norm in 20 places", told)


def test_fit_trains_what_cannot_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("only there")

    monkeypatch.setattr("dltrain.planning.plan.measure", fail)
    code, run = fit(experiment(training={"epochs": 1, "limit_batches": 1}), None, "cpu", Display(), runs=tmp_path)
    assert code == 0
    assert not (run.path / "plan.json").exists()
    assert "no plan.json: RuntimeError: only there" in capsys.readouterr().err
