"""`find lr`: a rate that learns, found without a run."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch
from training import assert_same_state, train, write_arrays
from typer.testing import CliRunner, Result

from dltrain import Experiment, build
from dltrain.cli import app
from dltrain.commands.find import curve
from dltrain.engine.learning_rates import Found, Tried, found, range_test, usual_range
from dltrain.runs import checkpoints

DIGITS = "data: digits\nmodel: {name: mlp, hidden: [32]}\noptimizer: {name: sgd, lr: 0.123}\n"


def find(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["find", "lr", *map(str, arguments), "--device", "cpu"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.yaml").write_text(DIGITS)
    return tmp_path


def searched(text: str, steps: int = 60, **changes: Any) -> Found:
    experiment = Experiment.parse(text).override_all(changes)
    *tried, result = range_test(experiment, "cpu", *usual_range(experiment), steps)
    assert isinstance(result, Found) and result.tried == tried
    return result


def reached(text: str, lr: float) -> float:
    """The loss on the validation split after 3 epochs with a constant rate."""
    experiment = Experiment.parse(text).override_all({"optimizer.lr": lr, "schedule": "constant", "training.epochs": 3})
    trainer = build(experiment, "cpu")
    list(trainer.run())
    return trainer.history[-1]["validation/loss"]


def test_the_suggestion_learns_and_others_do_not() -> None:
    result = searched(DIGITS, 150)
    assert result.suggestion is not None and 0.01 < result.suggestion < 0.3
    assert result.ended == "when the loss diverged"
    one, low, high = (reached(DIGITS, result.suggestion * factor) for factor in (1, 1e-3, 1e3))
    assert one < 1.0 < 2.0 < min(low, high)


def test_it_is_the_same_each_time_and_on_every_scale() -> None:
    one, other = searched(DIGITS), searched(DIGITS)
    assert one == other
    shifted = searched(DIGITS, **{"optimizer.lr": 7.0})
    assert shifted == one, "the rate of the experiment itself takes no part"
    assert [each.lr for each in one.tried[:2]] == pytest.approx([1e-5, 1e-5 * 1e7 ** (1 / 59)])


def test_the_losses_are_those_of_the_batches_before_each_step() -> None:
    """Steps that move nothing see the losses of the network as it starts; smoothed by hand."""
    experiment = Experiment.parse(DIGITS + "training: {batch_size: 64, accumulate: 2}")
    *tried, _ = range_test(experiment, "cpu", 1e-12, 2e-12, 12)
    trainer = build(experiment, "cpu")
    parts = trainer.parts
    batches = parts.train.batches(0)
    average = 0.0
    for step, each in enumerate(tried):
        assert isinstance(each, Tried)
        inputs, targets = parts.pipeline.train(next(batches), step)
        with torch.no_grad():
            loss = float(torch.nn.functional.cross_entropy(parts.model(inputs), targets))
        assert each.loss == pytest.approx(loss, rel=1e-4)
        average = 0.9 * average + 0.1 * loss
        assert each.smoothed == pytest.approx(average / (1 - 0.9 ** (step + 1)), rel=1e-4)


OTHERS: dict[str, str] = {
    "numbers": "data: diabetes\nmodel: {name: mlp, hidden: [16]}\ntraining: {batch_size: 32}",
    "inputs": "data: {name: digits, scaling: none}\nmodel: {name: autoencoder, hidden: [32], code: 8}\noptimizer: adam",
    "sam": DIGITS.replace("lr: 0.123", "lr: 0.123, sam: {}"),
    "layers": DIGITS.replace("lr: 0.123", "lr: 0.123, layer_decay: 0.5, groups: [{match: '4.*', lr: 0.2}]"),
    "no schedule": "data: digits\nmodel: {name: mlp, hidden: [32]}\noptimizer: schedule_free_sgd\nschedule: constant",
    "a moving momentum": DIGITS + "schedule: one_cycle",
    "a long warm-up and a time": DIGITS + "schedule: {name: cosine, warmup: {epochs: 2}}\ntraining: {time: 1h}",
    "a library": DIGITS.replace("name: sgd, lr: 0.123", "name: pytorch_optimizer/lion"),
    "estimates": "data: digits\nmodel: softmax_regression\ngradient: mezo\ntraining: {clip_norm: null}",
    "average": DIGITS + "training: {average: {name: swa}, early_stopping: {patience: 1}, epochs: 4, watch: {every: 1}}",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_it_works_for_all_kinds_of_training(kind: str) -> None:
    result = searched(OTHERS[kind], 60)
    assert len(result.tried) > 30
    usual = usual_range(Experiment.parse(OTHERS[kind]))[0] * 1e4
    assert result.suggestion is not None and usual / 300 < result.suggestion < usual * 300


def test_groups_move_alike() -> None:
    experiment = Experiment.parse(OTHERS["layers"])
    seen: list[list[float]] = []
    trainer = build(experiment, "cpu")
    original = trainer.parts.optimizer

    class Spy:
        def at(self, epoch: float, lr: float, momentum: float | None) -> Any:
            context = trainer.parts.learning.at(epoch, lr, momentum)
            seen.append([group["lr"] / lr for group in original.param_groups])
            return context

    for lr in (1e-3, 1.0):
        with Spy().at(0.0, lr, None):
            pass
    assert seen[0] == pytest.approx(seen[1]) and len(set(seen[0])) > 1


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [("{name: lbfgs, lr: 1}", "searches along the gradient"), ("pytorch_optimizer/prodigy", "finds the size")],
)
def test_where_there_is_no_rate_to_find(optimizer: str, why: str, here: Path) -> None:
    (here / "e.yaml").write_text(f"data: digits\nmodel: mlp\nschedule: constant\noptimizer: {optimizer}\n")
    done = find("e.yaml")
    assert done.exit_code == 2 and why in done.stderr and "e.yaml:4:" in done.stderr
    assert not (here / "find-lr").exists()


def test_the_command_shows_a_curve_a_picture_and_the_line_to_paste(here: Path) -> None:
    done = find("digits.yaml", "--steps", 120)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.rstrip().splitlines()
    assert lines[-1].startswith("optimizer.lr=0.") and "the experiment has 0.123" in lines[-2]
    assert sum("│" in line for line in lines) == 10 and f"^ {lines[-1].partition('=')[2]}" in done.stdout
    again = Experiment.load(here / "digits.yaml", [lines[-1]])
    assert again.optimizer.lr == float(lines[-1].partition("=")[2])
    picture = ElementTree.fromstring((here / "find-lr/digits.svg").read_text())
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert sorted(path.name for path in here.iterdir()) == ["digits.yaml", "find-lr"]


def test_plain_values_and_another_place(here: Path) -> None:
    done = find("digits.yaml", "--steps", 50, "--json", "--output", "out/a.svg", "--from", 1e-3, "--to", 1)
    values = json.loads(done.stdout)
    assert (here / "out/a.svg").is_file() and values["picture"] == "out/a.svg"
    assert [values["steps"][0]["lr"], values["steps"][-1]["lr"]] == pytest.approx([1e-3, 1])
    assert values["ended"] == "after 50 steps" and set(values["steps"][0]) == {"lr", "loss", "smoothed"}
    assert values["override"] == f"optimizer.lr={values['suggestion']:g}" and done.exit_code == 0
    done = find("digits.yaml", "--steps", 20, "--from", 1e-9, "--to", 1e-8, "--json")
    assert done.exit_code == 1 and json.loads(done.stdout)["suggestion"] is None
    done = find("digits.yaml", "--steps", 20, "--from", 1e-9, "--to", 1e-8)
    assert done.exit_code == 1 and "the loss hardly falls at any of these learning rates" in done.stdout
    assert find("digits.yaml", "--from", 1, "--to", 0.1).exit_code == 2
    assert find("nothing.yaml").exit_code == 2 and find(here / "find-lr").exit_code == 2


def test_a_run_is_gone_on_from_and_stays_as_it_is(here: Path) -> None:
    arrays = write_arrays(here / "a.npz")
    _, run = train(arrays, here, training__epochs=2, training__watch={"every": 3})
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    done = find(run.path, "--steps", 30, "--json")
    values = json.loads(done.stdout)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    fresh = json.loads(find(run.path / "experiment.yaml", "--steps", 30, "--json").stdout)
    assert values["steps"][0]["loss"] < fresh["steps"][0]["loss"], "it begins with what was learnt"
    state = checkpoints.load(run.path / "checkpoints/last.pt")
    assert_same_state(state, checkpoints.load(run.path / "checkpoints/last.pt"))


def test_what_diverges_and_what_never_falls() -> None:
    flat = [Tried(10.0**-n, 2.0, 2.0) for n in range(9, 0, -1)]
    assert found(flat, "", 9).suggestion is None and found(flat[:2], "", 9).suggestion is None
    falls = [Tried(10.0**-n, n / 9, n / 9) for n in range(9, 0, -1)]
    assert found(falls, "", 9).suggestion == 0.01
    assert list(curve(found(flat[:1], "", 9), 40)) == []
    assert max(map(len, curve(found(falls, "", 9), 40))) == 40


def test_a_plug_in_needs_no_default(here: Path) -> None:
    (here / "own.py").write_text(
        "from typing import Literal\n"
        "from dltrain.config import Positive\n"
        "from dltrain.optim import Optimizer\n\n\n"
        "class Own(Optimizer):\n"
        '    """SGD without a default of its rate."""\n\n'
        '    name: Literal["own_of_find"] = "own_of_find"\n'
        "    lr: Positive\n"
        '    """The rate."""\n\n'
        "    def build(self, groups, device):\n"
        "        import torch\n\n"
        "        return torch.optim.SGD(groups, lr=self.lr)\n"
    )
    from dltrain.config.section import _index
    from dltrain.optim import Optimizer

    known = list(Optimizer.catalogue)
    (here / "e.yaml").write_text(DIGITS.replace("name: sgd", "name: own_of_find"))
    try:
        done = find("e.yaml", "--steps", 60, "--plugin", here / "own.py")
    finally:
        Optimizer.catalogue[:] = known
        _index.cache_clear()
    assert done.exit_code == 0 and "optimizer.lr=" in done.stdout, done.stderr
