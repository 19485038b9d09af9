"""`dltrain ablate`: parts that help, that make no difference, that cannot be missed; parking; and wrong requests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import interrupted, table_of
from evaluating import invoke

from dltrain.evidence.sequential import SequentialTest
from dltrain.experiment.ablation import parts_of
from dltrain.experiment.experiment import Experiment

TABLE = """
data: {data}
model: {{name: mlp, hidden: [8]}}
loss: {{label_smoothing: 0.3}}
optimizer: {{name: adamw, lr: 0.1, weight_decay: 1.0e-9}}
schedule: cosine
training: {{epochs: 2, batch_size: 32}}
recorders: []
seed: 2
"""
OPTIONS = ("--metric", "validation/loss", "--error", 0.2, "--difference", 0.001, "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an experiment whose label smoothing harms the loss and whose decay does as good as nothing."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "x.yaml").write_text(TABLE.format(data=table_of(folder)))
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    parts = "loss.label_smoothing,optimizer.weight_decay"
    done = invoke("ablate", folder / "x.yaml", "--parts", parts, "--runs", folder / "runs", "--json", *OPTIONS)
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_parts_are_answered_and_share_the_base(found: dict[str, Any]) -> None:
    place = Path(found["folder"])
    assert json.loads((place / "ablation.json").read_text()) == found
    smoothing, decay = found["parts"]
    assert (smoothing["part"], smoothing["change"]) == ("loss.label_smoothing", {"loss.label_smoothing": 0})
    assert smoothing["answer"] == "harms" and smoothing["adds"]["mean"] > 0, "a loss"
    assert decay["answer"] == "makes no difference"
    test = SequentialTest(0.2, 0.001)
    for part in found["parts"]:
        added = np.array([pair["with"] - pair["without"] for pair in part["pairs"]])
        look = test.look(added)
        assert part["adds"] == {"mean": look.mean, "low": look.interval.low, "high": look.interval.high}
        assert look.verdict != "undecided" and test.look(added[:-1]).verdict == "undecided", "no pair too many"
        for pair in part["pairs"]:
            for side, name in (("with", "base"), ("without", part["part"])):
                result = json.loads((place / name / f"seed-{pair['seed']}/result.json").read_text())
                assert result["best"]["validation/loss"] == pair[side]
    pairs = [len(part["pairs"]) for part in found["parts"]]
    assert [pair["seed"] for pair in smoothing["pairs"]] == list(range(2, 2 + pairs[0]))
    trained = list(place.glob("*/seed-*/result.json"))
    assert len(trained) == found["cost"]["runs"] == max(pairs) + sum(pairs) <= found["cost"]["budget"]
    without = Experiment.load(place / "loss.label_smoothing/seed-2/experiment.yaml")
    assert without.override("loss.label_smoothing", 0.3) == Experiment.load(place / "base/seed-2/experiment.yaml")


def test_it_goes_on_where_it_was_interrupted(found: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(found["folder"], place := tmp_path / "x/ablate-001")
    (place / "ablation.json").unlink()
    shutil.rmtree(place / "loss.label_smoothing/seed-4")

    from dltrain.commands import ablate

    with interrupted(ablate, "train_one"):
        done = invoke("ablate", place)
    assert done.exit_code == 130 and f"to go on: dltrain ablate {place}" in done.stderr, done.output
    assert not (place / "ablation.json").exists()
    done = invoke("ablate", place, "training.epochs=3")
    assert done.exit_code == 2 and "goes on as it is" in done.stderr
    done = invoke("ablate", place)
    assert done.exit_code == 0 and "loss.label_smoothing" in done.stdout, done.output
    again = json.loads((place / "ablation.json").read_text())
    for one, other in zip(again["parts"], found["parts"], strict=True):
        assert (one["pairs"], one["answer"]) == (other["pairs"], other["answer"])
    assert again["cost"]["runs"] == found["cost"]["runs"]


def test_a_part_without_which_training_fails_stops_no_other(folder: Path, tmp_path: Path) -> None:
    """Plain steps of a rate with which no training can go on."""
    wild = ("--parts", "optimizer,loss.label_smoothing", "--runs", tmp_path, *OPTIONS)
    from dltrain.experiment import ablation

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ablation.OFF, "optimizer", [{"optimizer": {"name": "sgd", "lr": 1e30}}])
        done = invoke("ablate", folder / "x.yaml", "training.clip_norm=null", *wild)
    assert done.exit_code == 0, done.output
    place = tmp_path / "x/ablate-001"
    found = json.loads((place / "ablation.json").read_text())
    by_name = {part["part"]: part for part in found["parts"]}
    assert by_name["optimizer"]["answer"] == "training fails without it" and by_name["optimizer"]["failed"]
    assert by_name["loss.label_smoothing"]["answer"] == "harms"
    assert "- without `optimizer`: " in (place / "ablation.md").read_text()
    done = invoke("ablate", place, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout) == found, done.output


def test_what_is_stated_is_asked() -> None:
    experiment = Experiment.parse(
        "data: digits\nmodel: {name: convnet, norm: layer_norm, activation: gelu, dropout: 0.1}\n"
        "augmentation: [{name: translate, share: 0.1}, horizontal_flip]\npenalties: [{name: l2, strength: 0.1}]\n"
        "optimizer: {name: sgd, momentum: 0.9, nesterov: true, weight_decay: 0}\nschedule: {warmup: {epochs: 1}}\n"
        "training: {average: {name: ema}}\n"
    )
    parts = parts_of(experiment)
    assert set(parts) == {
        "augmentation", "augmentation.translate", "augmentation.horizontal_flip", "model.norm", "model.activation",
        "model.dropout", "penalties", "optimizer.momentum", "schedule", "schedule.warmup", "training.average",
    }  # fmt: skip
    assert parts["model.activation"] == {"model.activation": "identity"}, "null is not allowed there"
    assert parts["optimizer.momentum"] == {"optimizer.momentum": 0, "optimizer.nesterov": False}
    [left] = experiment.override_all(parts["augmentation.translate"]).augmentation
    assert left.name == "horizontal_flip"
    plain = Experiment.parse("data: digits\nmodel: convnet\n")
    assert parts_of(plain, ["model.norm"]) == {"model.norm": {"model.norm": None}}, "by default, when it is named"
    adam = Experiment.parse("data: digits\nmodel: convnet\noptimizer: adamw\n")
    assert adam.override_all(parts_of(adam)["optimizer"]).optimizer == plain.optimizer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "model.nrom"], "`model.nrom` is no part that can be left out; of this experiment these are: "),
        (["--parts", "training.average"], "`training.average` is not there in "),
        (["--parts", "optimizer", "--budget", "9"], "9 runs cannot decide, whatever they reach"),
        (["--metric", "validation/rmse"], "task `classification` has no metric `validation/rmse`"),
        (["data.validation=0"], "needs a validation split, and there is none"),
        (["optimizer=sgd", "schedule=constant", "loss.label_smoothing=0"], "there is nothing to leave out"),
        (["optimizer.lr=fast"], "optimizer.lr"),
    ],
)
def test_wrong_requests(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = invoke("ablate", folder / "x.yaml", *arguments, "--runs", tmp_path)
    assert done.exit_code == 2, done.output
    assert message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_what_holds_no_ablation_is_said(tmp_path: Path) -> None:
    done = invoke("ablate", tmp_path)
    assert done.exit_code == 2 and "holds no ablation" in done.stderr
    (tmp_path / "ablation.yaml").write_text("base: gone.yaml\nparts: {}\nbudget: 20\n")
    done = invoke("ablate", tmp_path)
    assert done.exit_code == 2 and "ablation.yaml:2:" in done.stderr and "Traceback" not in done.stderr
