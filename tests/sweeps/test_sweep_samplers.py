"""`dltrain sweep` with samplers that learn, in rounds, and with keys that only some choices have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml as yaml_library
from sweeping import ranking, sweep, write_experiment
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.experiment.experiment import Experiment
from dltrain.runs.run import JOURNAL
from dltrain.search import Sampler, Settings, Sweep, Told
from dltrain.sweeps.records import RunRecord
from dltrain.sweeps.study import Study

CONDITIONAL = [
    "optimizer={lr: 0.1}", "sweep.epochs=1", "training.epochs=2", "schedule=constant",
    "sweep.space={optimizer.name: {choices: [adam, sgd]}, optimizer.momentum: {low: 0.5, high: 0.9}, "
    "optimizer.lr: {low: 0.001, high: 1.0, log: true}}",
]  # fmt: skip


def study(experiment: Experiment, folder: Path) -> Study:
    assert experiment.sweep is not None
    ranks = tuple(map(experiment.resolved_task.objective, experiment.sweep.metrics))
    return Study(folder, experiment.sweep, ranks, experiment.seed)


def begin(study: Study, index: int) -> dict[str, Any]:
    """The values of a trial, drawn now unless it was begun before."""
    if index not in study.trials:
        setting = study.settings.draw(index, study.told())
        assert setting is not None
        study.begin(index, setting)
    return study.trials[index].values


def ended(accuracy: float) -> RunRecord:
    metrics = {"validation/accuracy": accuracy}
    return RunRecord(state="finished", epochs=1, metrics=metrics, reason=None, seconds=1.0)


def by_trial(folder: Path) -> list[dict[str, str]]:
    rows = sorted(ranking(folder), key=lambda row: int(row["trial"]))
    return [{key: value for key, value in row.items() if key != "rank"} for row in rows]


def test_a_sweep_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """It learns, in keys that only some choices have, from what its directory knows."""
    yaml = write_experiment(tmp_path)
    options = [*CONDITIONAL, "sweep.sampler={name: tpe, startup: 3}"]
    assert sweep(yaml, *options, "sweep.trials=7", "--runs", tmp_path / "whole").exit_code == 0
    assert sweep(yaml, *options, "sweep.trials=4", "--runs", tmp_path / "parts").exit_code == 0
    parts = tmp_path / "parts/tiny/sweep-001"
    assert sweep(parts, "sweep.trials=7").exit_code == 0
    whole = tmp_path / "whole/tiny/sweep-001"
    assert by_trial(parts) == by_trial(whole)
    rows = by_trial(whole)
    assert {row["optimizer.name"] for row in rows} == {"adam", "sgd"}
    assert all((row["optimizer.momentum"] == "") == (row["optimizer.name"] == "adam") for row in rows)
    for row in rows:
        trial = Experiment.load(whole / row["run"] / "experiment.yaml")
        assert trial.optimizer.name == row["optimizer.name"]
        assert trial.optimizer.lr == float(row["optimizer.lr"])
    assert CliRunner().invoke(app, ["check", str(whole / "best.yaml")]).exit_code == 0


def test_a_sampler_that_is_left_open_is_decided_once_and_told(tmp_path: Path) -> None:
    yaml = write_experiment(tmp_path)
    first = sweep(yaml, "sweep.sampler=auto", "sweep.trials=2", "sweep.epochs=1", "--runs", tmp_path)
    told = "sampler: quasi_random (2 trials are too few to learn from, and are spread evenly)"
    assert told in first.stderr
    folder = tmp_path / "tiny/sweep-001"
    experiment = Experiment.load(folder / "experiment.yaml", ["sweep.trials=100"])
    settings = study(experiment, folder).settings
    assert f"sampler: {settings.sampler.name} ({settings.why})" == told, "as it began, though 100 trials are many"
    assert sweep(folder, "sweep.sampler=tpe").exit_code == 2


def test_a_trial_that_was_begun_keeps_its_setting_whatever_is_told_later(tmp_path: Path) -> None:
    text = write_experiment(tmp_path)
    experiment = Experiment.load(text, ["sweep.sampler={name: tpe, startup: 2}", "sweep.trials=9"])
    first = study(experiment, tmp_path)
    trials = [begin(first, index) for index in range(4)]
    for index in range(3):
        first.finish(index, 0, ended(0.1 * index))
    begun = begin(first, 4)
    again = study(experiment, tmp_path)
    assert begin(again, 3) == trials[3]
    again.finish(3, 0, ended(0.9))
    assert begin(again, 4) == begun
    assert begin(again, 5) not in trials


@pytest.mark.parametrize("damage", ["a value is missing", "a value takes no part", "no values"])
def test_a_record_that_is_no_setting_counts_as_none(damage: str, tmp_path: Path) -> None:
    text = write_experiment(tmp_path)
    experiment = Experiment.load(text, CONDITIONAL)
    one = study(experiment, tmp_path)
    values = begin(one, 0)
    one.finish(0, 0, ended(0.5))
    assert [trial.values for trial in study(experiment, tmp_path).trials.values()] == [values]
    wrong: dict[str, dict[str, Any]] = {
        "a value is missing": {"optimizer.name": "sgd", "optimizer.lr": 0.1},
        "a value takes no part": {"optimizer.name": "adam", "optimizer.lr": 0.1, "optimizer.momentum": 0.5},
        "no values": {},
    }
    journal = (tmp_path / JOURNAL).read_text().splitlines()
    lines = [json.loads(line) for line in journal]
    for line in lines:
        if "values" in line.get("user_attr", {}):
            line["user_attr"]["values"] = json.dumps(wrong[damage])
    (tmp_path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert study(experiment, tmp_path).trials == {}


def test_a_sampler_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = write_experiment(tmp_path)
    sampler = Sampler.lookup("cma_es")
    monkeypatch.setattr(sampler, "library", "no_such_library")
    result = sweep(yaml, "sweep.sampler=cma_es", "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and "pip install 'dltrain[search]'" in result.stderr
    assert "sweep.sampler=cma_es" in result.stderr and not (tmp_path / "runs").exists()


def test_a_sweep_in_rounds_narrows_what_it_tries(tmp_path: Path) -> None:
    yaml = write_experiment(tmp_path)
    options = ["sweep.trials=8", "sweep.rounds=2", "sweep.epochs=1", "sweep.sampler=quasi_random"]
    result = sweep(yaml, *options, "--runs", tmp_path)
    assert result.exit_code == 0
    folder = tmp_path / "tiny/sweep-001"
    rows, searched = by_trial(folder), Experiment.load(folder / "experiment.yaml").sweep
    assert searched is not None
    settings = [{key: float(row[key]) for key in searched.space} for row in rows]
    costs = [-float(row["validation/accuracy"]) for row in rows]
    told = [Told(index, settings[index], (costs[index],), True) for index in range(4)]
    ranges = Settings(searched, 0).ranges(1, told)
    assert ranges != searched.space
    written = yaml_library.safe_load((folder / "rounds/2.yaml").read_text())
    assert Sweep.model_validate(written).space == ranges and "round 2: optimizer.lr: " in result.stderr
    for values in settings[4:]:
        assert all(ranges[key].bounds()[0] <= values[key] <= ranges[key].bounds()[1] for key in ranges)
