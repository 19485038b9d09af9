"""`training.time`: how long a training takes, which becomes its number of steps."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training import result
from typer.testing import CliRunner, Result

import dltrain.engine.seeding
from dltrain import ConfigError, Experiment, Run
from dltrain.cli import app
from dltrain.runs import checkpoints
from dltrain.runs.recording import Recordings

TEXT = """
data: {{name: arrays, path: {path}, validation: 0.2, test: 0}}
model: {{name: mlp, hidden: [8], dropout: 0.2}}
schedule: {{name: cosine, warmup: {{epochs: 2}}}}
training: {{{length}, batch_size: 4}}
sweep: {{trials: 1, epochs: 3, space: {{optimizer.lr: {{choices: [0.1, 0.2]}}}}}}
"""


def parse(length: str, *overrides: str) -> Experiment:
    return Experiment.parse(TEXT.format(path="a.npz", length=length), "e", overrides)


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a little more than 20 ms."""
    seed = dltrain.engine.seeding.seed_layers
    monkeypatch.setattr(dltrain.engine.seeding, "seed_layers", lambda *given: (time.sleep(0.02), seed(*given)))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5h", 5400), ("45s", 45), ("45", 45), ("1d 2h", 93600)],
)
def test_a_time_has_units_or_is_in_seconds(text: str, seconds: float) -> None:
    training = parse(f"time: {text}").training
    assert (training.seconds, training.epochs, training.steps) == (seconds, None, None)
    assert Experiment.parse(parse(f"time: {text}").dump()).training == training


@pytest.mark.parametrize("text", ["2x", "h", "0", "0h", "-5", "2h30", ".inf", "'45'", "true", "[1h]"])
def test_what_is_no_time_is_refused_where_it_stands(text: str) -> None:
    with pytest.raises(ConfigError, match=r"`training.time` must be") as caught:
        parse(f"time: {text}")
    (problem,) = caught.value.diagnostics
    assert problem.where is not None and problem.where.line == 5


def test_it_excludes_the_other_lengths_and_overrides_exchange_them() -> None:
    with pytest.raises(ConfigError, match=r"`training.epochs` and `training.time` are both given; keep one"):
        parse("time: 2h, epochs: 3")
    lengths = [
        parse("time: 2h", "training.epochs=3"), parse("time: 2h", "training.steps=30"),
        parse("epochs: 3", "training.time=1h"), parse("steps: 3", "training={time: 90}"),
    ]  # fmt: skip
    found = [(each.training.epochs, each.training.steps, each.training.seconds) for each in lengths]
    assert found == [(3, None, None), (None, 30, None), (None, None, 3600), (None, None, 90)]
    assert parse("time: 2h", "training.time=1h").schedule.model_dump()["warmup"]["epochs"] == 1


def test_a_trial_of_a_sweep_has_its_own_length(arrays: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(TEXT.format(path=arrays, length="time: 2h"))
    assert invoke("sweep", file, "--runs", tmp_path, "--device", "cpu").exit_code == 0
    assert Experiment.load(tmp_path / "e/sweep-001/trials/001/experiment.yaml").training.epochs == 3
    with pytest.raises(ConfigError, match=r"`training.time` cannot be searched: `sweep.epochs` is the length"):
        Experiment.load(file, ["sweep.space={training.time: {choices: [1h, 2h]}}"])


def test_plan_says_that_it_does_not_know_the_number_of_steps(arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TEXT.format(path=arrays, length="time: 2h"))
    done = invoke("plan", tmp_path / "e.yaml", "--json")
    assert done.exit_code == 0
    plan = json.loads(done.stdout)
    assert plan["epochs"] == 10 and plan["steps"] == 300
    assert any("`training.time`: `fit` times a few steps" in warning for warning in plan["warnings"])


@pytest.mark.usefixtures("slow")
def test_the_schedule_ends_where_the_time_ends(arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TEXT.format(path=arrays, length="time: 2s"))
    assert invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path, "--device", "cpu").exit_code == 0
    run = Run(tmp_path / "e/001")
    steps = result(run)["total_steps"]
    assert 30 <= steps <= 100 and 1.2 <= result(run)["seconds"] <= 5  # 2 s, and what other processes take
    for decided in (run.read_json("environment.json"), checkpoints.load(run.last)["about"]):
        decision = decided["decisions"]["steps"]
        assert decision["value"] == steps and decision["reason"].startswith("as many as fit into 2s here: 0.02")
    with (run.path / "metrics.csv").open() as table:
        assert float(list(csv.DictReader(table))[-1]["lr"]) < 0.001  # of 0.1
    training = Experiment.load(run.path / "experiment.yaml").training
    assert (training.steps, training.time) == (steps, None)


@pytest.mark.usefixtures("slow")
def test_a_resume_keeps_the_number_of_steps_and_the_weights(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e.yaml").write_text(TEXT.format(path=arrays, length="time: 3s, checkpoint_every: 1.0e-9"))
    add = Recordings.steps

    def interrupted(self: Recordings, points: list[dict[str, Any]]) -> None:
        add(self, points)
        if any(point["step"] > 40 for point in points):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recordings, "steps", interrupted)
        assert invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path, "--device", "cpu").exit_code == 130
    run = Run(tmp_path / "e/001")
    steps = result(run)["total_steps"]
    monkeypatch.undo()  # as on a faster machine
    assert invoke("resume", run.path).exit_code == 0
    assert (result(run)["state"], result(run)["step"]) == ("finished", steps)
    assert checkpoints.load(run.last)["about"]["decisions"]["steps"]["value"] == steps
    again = invoke("fit", run.path / "experiment.yaml", "--runs", tmp_path / "again", "--device", "cpu")
    assert again.exit_code == 0
    (other,) = (tmp_path / "again").glob("*/001")
    one, two = (checkpoints.load(path / "checkpoints/last.pt")["model"] for path in (run.path, other))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert invoke("resume", run.path, "training.time=1h").exit_code == 2
    assert invoke("resume", run.path, f"training.steps={steps + 9}").exit_code == 0
    assert result(run)["step"] == steps + 9
    assert "steps" not in checkpoints.load(run.last)["about"]["decisions"]  # it was decided for another length
