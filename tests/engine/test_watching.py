"""`training.watch`: what is seen of each layer, what is said of ill ones, and that nothing else changes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from rationing import only, some
from torch import nn
from training import arrays_experiment, assert_same_state, built, scalars, train, trained

from dltrain import Experiment, Trainer, build
from dltrain.commands.fit import fit, resume
from dltrain.commands.record import record
from dltrain.console.display import Display
from dltrain.engine.watching.activity import Listener, slopes, steepest
from dltrain.engine.watching.histograms import BINS, counted, read
from dltrain.engine.watching.judge import Judge, Seen
from dltrain.runs.events import read_histograms, read_images
from dltrain.runs.reports import Look, NonFiniteError

DIGITS = (
    "data: digits\nmodel: {name: mlp, hidden: [32, 32]}\ntraining: {steps: 25, batch_size: 128, watch: {every: 10}}"
)
WATCH = {"every": 7}


def watched(text: str, change: Callable[[Any], object] = lambda network: None, **changes: Any) -> list[str]:
    """What a training says of its layers. change: made to the network before it."""
    trainer = built(Experiment.parse(text).override_all(changes), progress_seconds=1e9)  # which looks for infinity
    with torch.no_grad():
        change(trainer.parts.model)
    looks: list[Look] = []
    try:
        for event in trainer.run():
            looks += event.looks
    except NonFiniteError:
        looks += trainer.looks()
    trainer.close()
    return [f"step {look.step}: {sentence}" for look in looks for sentence in look.sentences]


# -- planted faults


def test_a_relu_that_starts_dead() -> None:
    (text,) = watched(DIGITS, lambda network: network[1].bias.fill_(-50))
    assert text == (
        "step 10: `2` (ReLU): 100% of its units never fire since step 1: the start is bad; "
        "start with model.initialization: he_normal or lower optimizer.lr (now 0.1)"
    )
    (text,) = watched(DIGITS, lambda network: network[1].bias[:24].fill_(-50))
    assert "`2` (ReLU): 75% of its units never fire since step 1" in text
    assert watched(DIGITS, lambda network: network[1].bias[:8].fill_(-50)) == [], "a quarter is no illness"


def test_units_that_large_steps_kill() -> None:
    (text,) = watched(DIGITS, **{"optimizer.lr": 3.0, "schedule": "constant"})
    assert "`2` (ReLU)" in text and "units never fire since step 10" in text
    assert "steps were too large; lower optimizer.lr (now 3)" in text


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_sigmoid_that_is_saturated(activation: str) -> None:
    (text,) = watched(DIGITS, lambda network: network[1].weight.mul_(100), **{"model.activation": activation})
    assert "step 10: `2`" in text and "of its outputs are saturated since step 1: hardly any gradient passes" in text
    assert "start with model.initialization: xavier_normal or set model.norm: batch_norm" in text


def test_a_gradient_that_explodes() -> None:
    changes = {"model.hidden": [64] * 8, "model.initialization": {"name": "normal", "deviation": 0.6}}
    (text,) = watched(DIGITS, **changes)
    assert text.startswith("step 1: `1` (Linear): its gradient explodes: a norm of 9.") and "(as in `4`," in text
    assert "it grows from layer to layer; start with model.initialization: he_normal" in text
    unbound = watched(DIGITS, **changes, **{"training.clip_norm": None, "optimizer.lr": 1.0})
    assert any("are infinite or not a number" in text for text in unbound), unbound


def test_steps_that_are_too_large() -> None:
    texts = watched(DIGITS, **{"optimizer.lr": 300.0, "training.clip_norm": None})
    assert any("each step moves it by" in text and "set schedule.warmup: {epochs: 1}" in text for text in texts)
    assert any("set training.clip_norm: 1" in text for text in texts)


def test_the_first_steps_from_a_start_near_0_may_go_far() -> None:
    changes = {"model": "softmax_regression", "training.watch": {"every": 1}, "schedule": "constant"}
    assert watched(DIGITS, **changes) == []


def test_a_layer_that_does_not_learn() -> None:
    slow = {"name": "sgd", "lr": 0.1, "groups": [{"match": "4.*", "lr_scale": 1e-12}]}
    (text,) = watched(DIGITS, optimizer=slow)
    assert "step 10: `4` (Linear): it does not learn: no step moves it since step 1" in text
    assert "its steps are lost in rounding; look at optimizer.groups" in text

    def cut(network: nn.Module) -> None:
        network.get_submodule("4").register_forward_hook(lambda module, inputs, output: output.detach())

    (text,) = watched(DIGITS, cut)
    assert "`1` (Linear): it does not learn: no step moves it since step 1 (as in `4`): no gradient reaches it" in text
    assert watched(DIGITS, freeze=["4.*"]) == [], "frozen on purpose"
    later = {"name": "sgd", "lr": 0.1, "groups": [{"match": "4.*", "after": 100}]}
    assert watched(DIGITS, optimizer=later) == [], "it waits on purpose"


def test_a_gradient_that_vanishes() -> None:
    texts = watched(DIGITS, **{"model.hidden": [16] * 10, "model.activation": "sigmoid"})
    assert "`1` (Linear): its gradient vanishes" in texts[0] and "change model.activation" in texts[0]


# -- healthy trainings


HEALTHY = [
    "digits", "classics/softmax_regression", "tables/xor", "autoencoders/digits_sparse", "gradients/mezo",
    "digits_lbfgs", "classics/lenet5", "classics/mlp", "mnist_lenet", "tables/iris", "tables/wine", "tables/diabetes",
    "tables/and", "autoencoders/digits_contractive", "autoencoders/digits_denoising",
]  # fmt: skip


@pytest.mark.parametrize("name", only(HEALTHY[:5], HEALTHY))
def test_nothing_is_said_of_healthy_trainings(name: str, shared_data: Path) -> None:
    experiment = Experiment.load(REPOSITORY / f"experiments/{name}.yaml")
    changes: dict[str, Any] = {
        "training.watch": {"every": 8, "histograms": 0},
        "training.compile": False,
        "schedule": "constant",
    }
    folder = {"fashion_mnist": "fashion-mnist", "mnist": "mnist"}.get(experiment.data.name)
    if folder is not None:
        changes |= {"data.root": str(shared_data / folder), "training.limit_batches": 24, "training.batch_size": 64}
    looks = looks_at(experiment.override_all({**changes, "training.steps": 24}))
    assert [look.step for look in looks] == [1, 8, 16, 24]
    assert [sentence for look in looks for sentence in look.sentences] == []
    assert all(math.isfinite(value) for look in looks for value in look.row.values())


@pytest.fixture(scope="module")
def roots(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the data of the classics lies, by its name."""
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, shared_data.parent / "tools/cifar10.py", folder], check=True, capture_output=True)
    return {"cifar10": folder, "fashion_mnist": shared_data / "fashion-mnist", "mnist": shared_data / "mnist"}


CLASSICS = sorted(path.stem for path in (REPOSITORY / "experiments/classics").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSICS)
def test_nothing_is_said_of_the_classics(name: str, roots: dict[str, Path]) -> None:
    """Their own schedules, pressed into few steps; of each unit 128 images are seen and more."""
    experiment = Experiment.load(REPOSITORY / f"experiments/classics/{name}.yaml")
    looks = looks_at(experiment.override_all({
        "data.root": str(roots[experiment.data.name]), "data.validation": 0, "training.epochs": 1,
        "training.batch_size": 16, "training.limit_batches": 12, "training.compile": False,
        "training.watch": {"every": 1, "histograms": 0},
    }))  # fmt: skip
    assert len(looks) == 12
    assert [sentence for look in looks for sentence in look.sentences] == []


def looks_at(experiment: Experiment) -> list[Look]:
    """What a training sees of its layers."""
    trainer = build(experiment, "cpu")
    looks = [look for event in trainer.run() for look in event.looks]
    trainer.close()
    return looks


# -- nothing else changes

EVERY_WAY: dict[str, dict[str, Any]] = {
    "accumulate, ema": {},
    "sam": {"optimizer": {"name": "sgd", "lr": 0.05, "sam": {}}},
    "closure": {"optimizer": {"name": "lbfgs", "max_iter": 4}, "schedule": "constant", "training__clip_norm": None},
    "estimates": {"gradient": "mezo", "training__accumulate": 1, "training__clip_norm": None},
    "average": {"optimizer": "schedule_free_sgd", "schedule": "constant", "training__average": None},
    "bfloat16": {"training__precision": "bfloat16"},
    "float16 in weights": {"training__precision": "pure_float16", "training__clip_norm": None},
    "learned activations": {"model__activation": "pwlu", "model__dropout": 0.2},
    "other norms": {"model__norm": "batch_renorm"},
    "groups": {"optimizer": {"name": "adamw", "lr": 1e-3, "groups": [{"match": "0.*", "until": 1}]}},
    "unclipped": {"training__clip_norm": None},
}  # fmt: skip


def state_of(trainer: Trainer) -> dict[str, Any]:
    state = trainer.state_dict()
    return {key: value for key, value in state.items() if key not in ("about", "watched")}


@pytest.mark.parametrize("way", some(EVERY_WAY, 3))
def test_weights_are_those_of_a_training_without(way: str, arrays: Path) -> None:
    changes = {"training__epochs": 2, **EVERY_WAY[way]}
    plain = trained(arrays_experiment(arrays, **changes))
    looked = trained(arrays_experiment(arrays, **changes, training__watch=WATCH))
    assert_same_state(state_of(plain), state_of(looked))
    assert torch.equal(torch.get_rng_state(), torch.get_rng_state())


def test_a_compiled_network_is_looked_at_uncompiled(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look runs the network as it is, beside what was compiled; here, what stands for a compiler counts its
    calls."""
    calls: list[int] = []

    def compiled(model: nn.Module, **how: Any) -> Callable[[Any], Any]:
        def forward(images: Any) -> Any:
            calls.append(len(images))
            return model(images)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("dltrain.engine.decisions._missing_to_compile", lambda _: None)
    changes = {"training__epochs": 1, "training__compile": True}
    states, counts = [], []
    for watch in (None, WATCH):
        calls.clear()
        trainer = trained(arrays_experiment(arrays, **changes, training__watch=watch))
        states.append(state_of(trainer))
        counts.append(len(calls))
    assert_same_state(*states)
    assert counts[0] == counts[1] > 0


def test_a_resume_goes_on_with_the_same_looks_and_words(arrays: Path, tmp_path: Path) -> None:
    """Dead units need three looks of 20 examples to be told of: the run is interrupted between them."""
    whole, stopped = [], []
    experiment = arrays_experiment(arrays, training__watch={"every": 2}, training__early_stopping=None,
                                   model={"name": "mlp", "hidden": [8]}, optimizer__lr=5.0,
                                   augmentation=[], training__average=None)  # fmt: skip
    trainer = built(experiment)
    states: dict[int, Any] = {}
    for event in trainer.run():
        whole += event.looks
        if event.step in (3, 5, 12, 20):
            states[event.step] = json_like(trainer.state_dict())
    assert any(look.sentences for look in whole)
    for step, state in states.items():
        again = built(experiment, state=state)
        stopped = [look for event in again.run() for look in event.looks]
        assert stopped == [look for look in whole if look.step > step]
        assert_same_state(trainer.state_dict(), again.state_dict())


def json_like(state: Any) -> Any:
    """A copy of nested values, as a file would hold it."""
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: json_like(value) for key, value in state.items()}
    return [json_like(value) for value in state] if isinstance(state, (list, tuple)) else state


def test_a_run_is_watched_through_its_end(arrays: Path, tmp_path: Path) -> None:
    """One that is made longer shows what the long one shows, and the look at its first end besides."""
    watch = {"training__watch": WATCH, "schedule": "constant"}
    _, whole = train(arrays, tmp_path / "whole", **watch, training__epochs=3)
    _, run = train(arrays, tmp_path / "cut", **watch, training__epochs=2)
    code, _ = resume(str(run.path), "cpu", Display(), overrides=["training.epochs=3"])
    assert code == 0
    one, other = (scalars(path.path) for path in (whole, run))
    assert {step for step, _ in one["watch/gradient/0"]} == {1, 7, 14, 15}
    for tag in (tag for tag in one if tag.startswith("watch/")):
        assert [point for point in other[tag] if point[0] != 10] == one[tag]


def test_it_can_be_turned_on_later(arrays: Path, tmp_path: Path) -> None:
    _, run = train(arrays, tmp_path, training__epochs=2, schedule="constant")
    asked = ["training.epochs=3", "training.watch={every: 5}"]
    assert resume(str(run.path), "cpu", Display(), overrides=asked)[0] == 0
    assert [step for step, _ in scalars(run.path)["watch/gradient/0"]] == [15]


# -- what is seen


def test_numbers_are_those_of_the_batch(arrays: Path) -> None:
    text = f"data: {{name: arrays, path: {arrays}, validation: 0.2, test: 0}}\nmodel: {{name: mlp, hidden: [8]}}\n"
    text += "training: {steps: 1, batch_size: 40, watch: {every: 1}, clip_norm: 0.01}\nschedule: constant"
    trainer = build(Experiment.parse(text), "cpu")
    parts = trainer.parts
    inputs, targets = parts.pipeline.train(next(parts.train.batches(0)), 0)
    hidden = parts.model[:2](inputs)
    loss = nn.functional.cross_entropy(parts.model(inputs), targets)
    gradients = torch.autograd.grad(loss, list(parts.model.parameters()))
    before = [p.detach().clone() for p in parts.model.parameters()]
    (event,) = list(trainer.run())
    (look,) = event.looks
    row = look.row
    moved = [p.detach() - b for p, b in zip(parts.model.parameters(), before, strict=True)]
    for at, name in ((0, "1"), (2, "4")):
        expected = math.hypot(*(float(g.norm()) for g in gradients[at : at + 2]))
        assert row[f"watch/gradient/{name}"] == pytest.approx(expected, rel=1e-4), "before it is cut"
        update, size = (math.hypot(*(float(v.norm()) for v in values[at : at + 2])) for values in (moved, before))
        assert row[f"watch/update/{name}"] == pytest.approx(update / size, rel=1e-4)
    assert row["watch/mean/1"] == pytest.approx(float(hidden.detach().mean()), rel=1e-4)
    assert row["watch/deviation/1"] == pytest.approx(float(hidden.detach().std(correction=0)), rel=1e-4)
    assert row["watch/dead/2"] == float((hidden <= 0).all(0).float().mean())
    histogram = look.histograms["watch/activations/1"]
    counts, edges = torch.histogram(hidden.detach().flatten(), BINS)
    assert histogram.counts == counts.long().tolist() and histogram.edges == pytest.approx(edges.tolist())
    assert histogram.total == pytest.approx(float(hidden.detach().sum()), rel=1e-4)
    assert sum(look.histograms["watch/weights/4"].counts) == parts.model[4].weight.numel()


def test_units_stand_where_the_layer_before_puts_them() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(inplace=True), nn.Flatten(2), nn.Linear(4, 5), nn.ReLU())
    with torch.no_grad():
        network[0].bias.copy_(torch.tensor([-9.0, 9.0, 9.0]))
        network[0].weight.zero_()
        network[3].bias[:2] = -900.0
    seen = Listener(network, ["0", "3"]).listen(torch.rand(4, 1, 2, 2), torch.no_grad, histograms=False)
    assert list(seen) == ["0", "1", "3", "4"]
    assert seen["1"].silent is not None and seen["1"].silent.tolist() == [True, False, False]
    assert seen["4"].silent is not None and seen["4"].silent.tolist()[:2] == [True, True]
    assert len(seen["4"].silent) == 5


def test_a_layer_that_runs_twice_is_seen_twice_and_gates_are_left_alone() -> None:
    from torchvision.models import mobilenet_v3_small

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.layer(self.act(self.layer(x))))

    seen = Listener(Twice(), ["layer"]).listen(torch.rand(3, 4), torch.no_grad, histograms=True)
    assert list(seen) == ["layer", "act", "layer:2", "act:2"] and seen["act"].histogram is not None
    names = list(Listener(mobilenet_v3_small(), []).listen(torch.rand(2, 3, 32, 32), torch.no_grad, histograms=False))
    assert "features.0.2" in names and not [
        name for name in names if "scale_activation" in name or "block.1.act" in name
    ]


@pytest.mark.parametrize(
    ("activation", "slope"),
    [(nn.Sigmoid(), 0.25), (nn.Tanh(), 1.0), (nn.Hardsigmoid(), 1 / 6), (nn.Hardtanh(), 1.0), (nn.Softsign(), 0.6),
     (nn.ReLU(), None), (nn.ReLU6(), None), (nn.GELU(), None), (nn.SiLU(), None), (nn.LeakyReLU(), None),
     (nn.Hardswish(), None), (nn.ELU(), None), (nn.Tanhshrink(), None)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_shaped_like_a_sigmoid(activation: nn.Module, slope: float | None) -> None:
    x = torch.linspace(-6, 6, 50)[:, None]
    found = steepest(activation, x)
    assert (found is None) == (slope is None)
    if found is not None and slope is not None:
        assert float(found) == pytest.approx(slope, rel=0.15)
    own = slopes(activation, x)
    wide = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(activation(wide * 1.0).sum(), wide)
    assert own is not None and torch.allclose(own.double(), expected.abs(), atol=1e-6)


def test_histograms_of_large_and_odd_tensors() -> None:
    values = torch.randn(300_000)
    found = read(counted(values).tolist())
    assert found is not None and 2**15 < sum(found.counts) <= 2**16
    assert read(counted(torch.tensor([1.0, float("nan")])).tolist()) is None
    same = read(counted(torch.full((5,), 3.0)).tolist())
    assert same is not None and sum(same.counts) == 5 and same.edges == sorted(set(same.edges))


def test_rare_units_of_small_batches_need_more_looks() -> None:
    judge, silent = Judge(), torch.tensor([True, True, False])
    seen = [Seen(step, 16, 1.0, {"a": (0.0, 1.0)}, {"a": silent}, {}, {"w": (1.0, 1.0, 0.1)}) for step in range(1, 9)]
    found = [judge.judge(each) for each in seen]
    assert [len(each) for each in found] == [0] * 7 + [1]
    assert (found[7][0].kind, found[7][0].since, found[7][0].step) == ("silent", 1, 8)
    again = Judge()
    again.load_state_dict(judge.state_dict())
    assert again.judge(seen[7]) == [] and again.findings == judge.findings


# -- where it is shown


def test_a_run_keeps_it_in_all_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "data: digits\nmodel: {name: convnet, widths: [4]}\noptimizer: {lr: 50.0}\n"
    text += "training: {steps: 20, batch_size: 128, clip_norm: null, watch: {every: 5, histograms: 2}}\n"
    code, run = fit(Experiment.parse(text, "ill"), None, "cpu", Display(), runs=tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: `")]
    assert code == 0 and said and all(line in (run.path / "log.txt").read_text() for line in said)
    findings = json.loads((run.path / "result.json").read_text())["watch"]
    assert findings and set(findings[0]) == {"kind", "layer", "step", "since", "value"}
    assert [step for step, _ in scalars(run.path)["watch/update/0"]] == [1, 5, 10, 15, 20]
    histograms, images = read_histograms(run.path), read_images(run.path)
    assert sorted({step for _, step in histograms}) == [1, 10, 20]
    assert histograms["watch/weights/0", 10].edges == sorted(histograms["watch/weights/0", 10].edges)
    assert [step for name, step in images if name == "watch/filters"] == [11, 20]
    shown = images["watch/filters", 20]
    assert shown.shape == (3, 26, 4 * 26) and float(shown.max()) == 1.0
    record(str(run.path), "tensorboard", [], Display())
    assert read_histograms(run.path) == histograms


def test_tensorboard_shows_the_histograms(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    text = DIGITS.replace("steps: 25", "steps: 4").replace("every: 10", "every: 2")
    _, run = fit(Experiment.parse(text, "seen"), None, "cpu", Display(), runs=tmp_path)
    events = EventAccumulator(str(run.path), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert "watch/gradients/1" in [*tags["histograms"], *tags["tensors"]]
    assert "watch/dead/2" in [*tags["scalars"], *tags["tensors"]]


def test_nothing_is_looked_at_without_being_asked(arrays: Path) -> None:
    trainer = trained(arrays_experiment(arrays, training__epochs=1))
    assert trainer.parts.watcher is None and trainer.looks() == [] and "watched" not in trainer.state_dict()
