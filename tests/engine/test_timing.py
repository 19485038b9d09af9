"""Where the time of a training goes, and what `fit` says about it."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
from forking import Zygote
from training import arrays_experiment, assert_same_run, built, result, train, write_experiment

from dltrain import Experiment, Run
from dltrain.commands.fit import fit, resume
from dltrain.console.display import Display
from dltrain.data.loading.base import Loader
from dltrain.engine.timing import advice, beyond_usual, shares

PARTS = {
    "start": 5.0,
    "first_step": 0.0,
    "data": 1.0,
    "compute": 90.0,
    "evaluate": 2.0,
    "checkpoint": 1.0,
    "other": 1.0,
}
STREAMING = {"compile": {"value": False}, "loader": {"value": "streaming"}, "workers": {"value": 0}}
RESIDENT = {**STREAMING, "loader": {"value": "resident"}}
FOLDER = Experiment.parse("data: {name: image_folder, root: photos}\nmodel: convnet")
CACHED = Experiment.parse("data: {name: image_folder, root: photos, cache: true}\nmodel: convnet")
SYNTHETIC = Experiment.parse("data: synthetic\nmodel: convnet")


def told(experiment: Experiment, decisions: dict[str, Any], inside: float = 0.0, **seconds: float) -> str | None:
    return advice({**PARTS, **seconds}, experiment, decisions, evaluations=10, inside=inside)


def test_every_epoch_says_where_its_time_went(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = Run.hold
    monkeypatch.setattr(Run, "hold", lambda *a, **k: (time.sleep(0.1), hold(*a, **k))[1])
    _, run = train(arrays, tmp_path, training__epochs=2, training__checkpoint_every=10)
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert all(float(row[f"seconds/{part}"]) > 0 for part in ("data", "compute", "evaluate", "checkpoint"))
        assert float(row["seconds/checkpoint"]) >= 0.1
    content = result(run)
    assert list(content["time"]) == list(content["shares"]) == list(PARTS)
    assert sum(content["time"].values()) == pytest.approx(content["seconds"], abs=0.01)
    assert sum(content["shares"].values()) == pytest.approx(1, abs=0.001)
    assert content["time"]["checkpoint"] >= 0.2


def test_a_slow_loader_shows_as_data(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Loader.examples_of
    monkeypatch.setattr(Loader, "examples_of", lambda *a: (time.sleep(0.05), examples(*a))[1])
    _, run = train(arrays, tmp_path, training__steps=7, training__epochs=None, training__average=None)
    assert result(run)["time"]["data"] > 0.3 > result(run)["time"]["compute"]


def test_seconds_add_up_over_processes(arrays: Path, tmp_path: Path) -> None:
    _, run = train(arrays, tmp_path, training__epochs=1)
    before = {"state": "interrupted", "seconds": 1000.0, "time": {"start": 900.0, "first_step": 90.0}}
    run.write_json("result.json", before)
    assert resume(str(run.path), None, Display())[0] == 0
    after = result(run)
    assert after["time"]["start"] > 900 and after["time"]["first_step"] == 90 and 1000 < after["seconds"] < 1060


def test_it_names_the_largest_avoidable_share_and_its_setting() -> None:
    assert told(SYNTHETIC, RESIDENT) is None
    assert told(SYNTHETIC, RESIDENT, data=200) is None  # images of the device are only gathered
    said = told(SYNTHETIC, STREAMING, data=200)
    assert said is not None and said.startswith("67% of the time went into waiting for images: data.loader=resident")
    said = told(SYNTHETIC, RESIDENT, evaluate=98)
    assert said is not None and "training.evaluate_every=10 (epochs)" in said and said.startswith("45% ")
    said = told(SYNTHETIC, {**RESIDENT, "compile": {"value": True}}, first_step=30)
    assert said == "23% of the time went into compiling: training.compile=false goes without, with slower steps"
    assert told(SYNTHETIC, RESIDENT, first_step=30) is None
    said = told(SYNTHETIC, RESIDENT, inside=50, checkpoint=60)
    assert said is not None and "training.checkpoint_every=105 (minutes)" in said
    assert told(SYNTHETIC, RESIDENT, checkpoint=60) is None  # those after epochs are what `resume` needs


def test_photos_are_decoded_once() -> None:
    said = told(FOLDER, STREAMING, data=100)
    assert said is not None and "data.cache=true decodes them once" in said
    said = told(CACHED, STREAMING, data=100)
    assert said is not None and "data.loader=resident" in said


def test_every_setting_it_names_can_be_written() -> None:
    compiled = {**RESIDENT, "compile": {"value": True}}
    lines = [
        told(FOLDER, STREAMING, data=100), told(SYNTHETIC, STREAMING, data=100), told(SYNTHETIC, RESIDENT, evaluate=98),
        told(SYNTHETIC, RESIDENT, inside=50, checkpoint=60), told(SYNTHETIC, compiled, first_step=30),
    ]  # fmt: skip
    for line in lines:
        assert line is not None
        Experiment.parse(FOLDER.dump(), "folder", [line.partition(": ")[2].split()[0]])


def test_little_time_is_not_worth_a_word() -> None:
    few = {part: seconds / 100 for part, seconds in PARTS.items()}
    assert advice({**few, "data": 1.9}, SYNTHETIC, STREAMING, evaluations=2, inside=0.0) is None


def test_the_first_step_is_set_against_the_others() -> None:
    history = [{"step": 5.0, "seconds/compute": 14.0}, {"step": 11.0, "seconds/compute": 6.0}]
    assert beyond_usual(history, 10.0) == pytest.approx(9.0)
    assert beyond_usual(history, 0.5) == 0.0 and beyond_usual([], 10.0) == 0.0 and beyond_usual(history[:1], 99.0) == 0
    assert sum(shares(PARTS).values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_profile_is_written_and_changes_no_weight(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    for folder, *options in (("plain",), ("profiled", "--profile")):
        path = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), "training.epochs": 5})
        command = ("fit", path, "--runs", tmp_path / folder, *options)
        assert zygote.run(*command, output=tmp_path / f"{folder}.txt") == 0
    runs = [tmp_path / folder / "tiny" / "001" for folder in ("plain", "profiled")]
    assert_same_run(*runs)
    (trace,) = runs[1].glob("profile/*.pt.trace.json")
    assert trace.name == "steps_11-20.pt.trace.json" and not (runs[0] / "profile").exists()
    names = [event.get("name") for event in json.loads(trace.read_text())["traceEvents"]]
    assert {f"ProfilerStep#{step}" for step in range(10, 20)} <= set(names) and names.count("batch") == 10
    assert "ProfilerStep#9" not in names and "ProfilerStep#20" not in names
    text = (tmp_path / "profiled.txt").read_text()
    table = text[text.index("share  ms a step") :].splitlines()[1:11]
    assert "trace of steps 11 to 20" in text and all("%" in line for line in table) and "conv" in "".join(table)
    assert "trace of" in (runs[1] / "log.txt").read_text()


@pytest.mark.parametrize(("steps", "asked", "name"), [(1, 3, "1-1"), (4, 9, "1-3"), (6, 2, "4-5")])
def test_a_short_training_is_profiled_too(arrays: Path, tmp_path: Path, steps: int, asked: int, name: str) -> None:
    experiment = arrays_experiment(arrays, training__steps=steps, training__epochs=None)
    _, run = fit(experiment, None, "cpu", Display(), runs=tmp_path, profile_steps=asked)
    assert [path.name for path in (run.path / "profile").iterdir()] == [f"steps_{name}.pt.trace.json"]
    assert result(run)["state"] == "finished"


def test_a_trainer_alone_reports_the_parts_too(arrays: Path) -> None:
    trainer = built(arrays_experiment(arrays, training__epochs=1), 1e9)
    (event,) = trainer.run()
    assert {"seconds/data", "seconds/compute", "seconds/evaluate", "seconds/checkpoint"} <= set(event.metrics)
    assert 0 < trainer.first_step < event.metrics["seconds/compute"]
