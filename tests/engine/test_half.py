"""Weights of 16 bits: which they are, that everything around them works, and who cannot take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rationing import some
from torch import nn
from training import arrays_experiment, assert_same_state, built, train, trained
from typer.testing import CliRunner

from dltrain import ConfigError, Experiment, build
from dltrain.cli import app
from dltrain.engine.precision import FixedScale
from dltrain.planning.plan import plan
from dltrain.runs import checkpoints

PLAIN: dict[str, Any] = {
    "augmentation": [], "training__average": None, "training__early_stopping": None, "training__epochs": 2,
    "training__precision": "pure_bfloat16", "schedule": "constant",
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "lenet": {"model": "lenet5", "data__size": 28},
    "batch_norm": {"model": {"name": "convnet", "widths": [6, 8]}},
    "residual": {"model": "resnet20", "data__size": 8},
    "layer_norm": {"model": {"name": "convnet", "widths": [6, 8], "norm": "layer_norm"}},
    "scaled": {"model": "airbench94", "data__size": 12},
}


def half(arrays: Path, **changes: Any) -> Experiment:
    return arrays_experiment(arrays, **{**PLAIN, **changes})


@pytest.mark.parametrize("name", some(NETWORKS, 5))
def test_convolutions_and_linear_layers_keep_16_bits_and_all_else_32(name: str, arrays: Path) -> None:
    changes = {**NETWORKS[name], "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9}}
    trainer = trained(half(arrays, **changes))
    model = trainer.parts.model
    products = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    weights = {id(p) for module in products for p in module.parameters()}
    assert weights
    for tensor in (*model.parameters(), *model.buffers()):
        expected = torch.bfloat16 if id(tensor) in weights else torch.float32
        assert tensor.dtype == expected or not tensor.is_floating_point()
    for parameter, state in trainer.parts.optimizer.state.items():
        assert state["momentum_buffer"].dtype == parameter.dtype
    losses = [row["train/loss"] for row in trainer.history]
    assert losses[1] < losses[0] * 1.2
    about = trainer.about["decisions"]["precision"]
    assert about["value"] == "pure_bfloat16" and "keep their weights in it" in about["reason"]


def test_it_computes_what_autocast_computes_with_the_same_weights(arrays: Path) -> None:
    trainer = trained(half(arrays, **NETWORKS["batch_norm"]))
    exact = built(half(arrays, **NETWORKS["batch_norm"], training__precision="bfloat16"))
    exact.parts.model.load_state_dict(trainer.parts.model.state_dict())
    assert next(exact.parts.model.parameters()).dtype == torch.float32
    images = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with trainer.parts.autocast():
        torch.testing.assert_close(trainer.parts.model.eval()(images), exact.parts.model.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__average": {"name": "ema", "decay": 0.9}},
        {"optimizer": {"name": "adagrad", "lr": 0.01}},
        {"optimizer": {"name": "adamw", "lr": 0.01, "lookahead": {}}, "training__precision": "pure_float16"},
    ],
)
def test_a_training_continues_exactly(changes: dict[str, Any], arrays: Path, tmp_path: Path) -> None:
    experiment = half(arrays, **NETWORKS["batch_norm"], **changes)
    whole = trained(experiment)
    checkpoints.save(trained(experiment, until=7).state_dict(), tmp_path / "at.pt")
    second = build(experiment, "cpu", checkpoints.load(tmp_path / "at.pt"))
    second.load_state_dict(checkpoints.load(tmp_path / "at.pt"))
    assert list(second.run())
    assert_same_state(whole.state_dict(), second.state_dict())


def test_an_average_keeps_the_bits_that_the_weights_lack(arrays: Path) -> None:
    """A share of 0.001 of a weight in bfloat16 is less than its last bit."""
    start = built(half(arrays, **NETWORKS["batch_norm"])).parts.model.state_dict()
    trainer = trained(
        half(arrays, **NETWORKS["batch_norm"], training__average={"name": "ema", "decay": 0.999, "warmup": False})
    )
    average = trainer.parts.average.model.state_dict()
    assert {tensor.dtype for tensor in average.values() if tensor.is_floating_point()} == {torch.float32}
    weights = [name for name, tensor in start.items() if tensor.dtype == torch.bfloat16 and tensor.ndim == 4]
    for name in weights:
        assert (average[name] != start[name].float()).float().mean() > 0.9
        assert (average[name].bfloat16() == start[name]).float().mean() > 0.5  # what bfloat16 would have kept


@pytest.mark.parametrize("average", [None, {"name": "ema", "decay": 0.8}])
def test_eval_measures_what_validation_measured(average: Any, arrays: Path, tmp_path: Path) -> None:
    changes = {**PLAIN, **NETWORKS["batch_norm"], "training__average": average}
    code, run = train(arrays, tmp_path, **changes)
    assert code == 0
    result = CliRunner().invoke(app, ["eval", str(run.path), "--split", "validation", "--checkpoint", "last", "--json"])
    assert result.exit_code == 0, result.stderr
    last = json.loads((run.path / "result.json").read_text())["last"]
    assert json.loads(result.stdout)["loss"] == pytest.approx(last["validation/loss"], rel=1e-6)


def test_a_plan_counts_the_bytes_of_the_training(arrays: Path) -> None:
    experiment = half(arrays, **NETWORKS["batch_norm"], training__progressive_size={"multiple_of": 1})
    found, model = plan(experiment, "cpu"), built(experiment).parts.model
    assert found["memory_bytes"]["parameters"] == sum(p.nbytes for p in model.parameters())
    assert found["progressive_size"].startswith("4x4, ")


# -- float16


def test_a_fixed_scale_keeps_gradients_that_float16_loses() -> None:
    def gradient(scale: FixedScale | None) -> torch.Tensor:
        weight = nn.Parameter(torch.ones(5).half())
        images = torch.full((4096, 5), 1e-5).half()
        loss = (images * weight).sum(1).float().mean()
        (scale.scale(loss) if scale else loss).backward()  # type: ignore[no-untyped-call]
        optimizer = torch.optim.SGD([weight], lr=0.0)
        if scale:
            scale.unscale_(optimizer)
            scale.step(optimizer)  # which must not divide a second time
            scale.update()
        assert weight.grad is not None
        return weight.grad.float()

    torch.testing.assert_close(gradient(FixedScale(4096)), torch.full((5,), 1e-5), rtol=0.05, atol=0)
    assert bool((gradient(None) == 0).all())


def test_float16_follows_float32(arrays: Path) -> None:
    changes = {**NETWORKS["batch_norm"], "optimizer": {"name": "sgd", "lr": 0.05}}
    losses = [
        [row["train/loss"] for row in trained(half(arrays, **changes, training__precision=precision)).history]
        for precision in ("pure_float16", "float32")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


# -- who cannot


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"name": "sgd", "lr": 0.1, "sam": {}}}, "`sam` needs weights in float32"),
        ({"optimizer": {"name": "lbfgs", "lr": 0.1}, "training__clip_norm": None}, "`lbfgs` needs weights in float32"),
        ({"penalties": [{"name": "l1", "strength": 0.1}]}, "penalties need weights in float32"),
    ],
)
def test_what_needs_float32_is_refused_by_check(changes: dict[str, Any], message: str, arrays: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        half(arrays, **changes)
    assert any(d.message.startswith(message) for d in caught.value.diagnostics)


def test_an_optimizer_whose_state_a_resume_would_round_is_refused(arrays: Path) -> None:
    with pytest.raises(ConfigError, match="`nadam` cannot train weights in bfloat16: it keeps `mu_product` in float32"):
        built(half(arrays, **NETWORKS["batch_norm"], optimizer={"name": "nadam", "lr": 0.01}))


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.filterwarnings("ignore")
def test_a_first_step_that_overflows_leaves_weights_and_momentum_alone(
    arrays: Path, schedule: str, momentum: float
) -> None:
    """`one_cycle` gives a momentum to SGD that has none of its own; its buffer starts from zeros then, too."""
    experiment = arrays_experiment(
        arrays, optimizer={"name": "sgd", "lr": 0.1, "momentum": momentum}, schedule=schedule,
        model={"name": "mlp", "hidden": [8]}, training={"steps": 1, "batch_size": 16, "precision": "float16"},
    )  # fmt: skip
    trainer = built(experiment)
    trainer.parts.scaler.load_state_dict(torch.amp.GradScaler("cpu", init_scale=2.0**100).state_dict())
    start = {name: value.clone() for name, value in trainer.parts.model.state_dict().items()}
    shapes = [parameter.shape for parameter in trainer.parts.model.parameters()]
    del [torch.full(shape, 1e30) for shape in shapes * 20][:]  # used memory, for a buffer that is not filled
    list(trainer.run())
    assert_same_state(dict(trainer.parts.model.state_dict()), start)
    buffers = [state["momentum_buffer"] for state in trainer.parts.optimizer.state.values()]
    assert bool(buffers) == (momentum > 0 or schedule == "one_cycle")
    assert not any(bool(buffer.any()) for buffer in buffers)
