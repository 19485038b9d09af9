"""What `fit` and `init` say of how long a training will take."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training import arrays_experiment, built, result, write_folder
from typer.testing import CliRunner

import dltrain.engine.builder
import dltrain.engine.seeding
from dltrain.cli import app
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.engine.forecast import Forecast, duration, end
from dltrain.engine.trainer import Trainer
from dltrain.runs.reports import Progress


class Impatient(Display):
    """Interrupts the training as soon as it has said how long it takes."""

    def line(self, text: str, style: str = "") -> None:
        super().line(text, style)
        if " takes about " in text:
            raise KeyboardInterrupt


def test_fit_says_how_long_it_will_take(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dltrain.engine.seeding, "seed_layers", lambda *_: time.sleep(0.05))
    experiment = arrays_experiment(arrays, training__epochs=None, training__steps=2000, training__early_stopping=None)
    code, run = fit(experiment, None, "cpu", Impatient(), runs=tmp_path)
    (said,) = re.findall(r"^.* takes about .*$", (run.path / "log.txt").read_text(), re.MULTILINE)
    found = re.fullmatch(r"the training takes about (\d) minutes, until (....-..-.. )?\d\d:\d\d", said)
    assert found is not None and 2 <= int(found[1]) <= 4  # 100 seconds and more
    assert (code, result(run)["state"]) == (130, "interrupted")


def trainer_of(arrays: Path, **changes: Any) -> Trainer:
    """One whose epochs of 100 steps have one evaluation, of a split as large as 30 steps."""
    trainer = built(arrays_experiment(arrays, **changes))
    trainer.settings = replace(trainer.settings, steps_per_epoch=100, total_steps=1000)
    trainer.examples["validation"] = 30 * trainer.settings.batch_size
    return trainer


def after(step: int, seconds: float) -> Progress:
    return Progress(1, step, 1000, 100, {"loss": 1.0}, 0.1, 100.0, seconds)


def test_evaluations_count_before_the_first_and_as_they_were_afterwards(arrays: Path) -> None:
    forecast = Forecast(trainer := trainer_of(arrays))
    assert forecast.seconds_left(after(1, 60.0)) is None  # the first step compiles
    assert forecast.seconds_left(after(3, 61.0)) is None  # too little to judge by
    assert forecast.seconds_left(after(5, 62.0)) == pytest.approx(0.5 * 995 + 10 * 0.5 * 30 / 3)
    row = {"seconds/data": 10.0, "seconds/compute": 100.0, "seconds/evaluate": 7.0, "seconds/checkpoint": 1.0}
    trainer.history.append({"validation/loss": 1.0, **row})
    assert forecast.seconds_left(after(101, 0.0)) == pytest.approx(0.5 * 899 + 9 * 8)


def test_small_images_tell_how_long_large_ones_take(arrays: Path) -> None:
    sizes = {"start": 0.5, "delay": 0.5, "finetune": 0.5, "count": 2, "multiple_of": 1}
    forecast = Forecast(trainer := trainer_of(arrays, training__progressive_size=sizes))
    half = trainer.settings.sizes[1][0]
    trainer.settings = replace(trainer.settings, total_steps=2 * half, steps_per_epoch=2 * half)
    trainer.examples["validation"] = 0
    forecast.seconds_left(after(1, 0.0))
    assert forecast.seconds_left(after(3, 4.0)) == pytest.approx(2.0 * (half - 3) + 8.0 * half)  # a quarter of the work


def test_a_short_training_is_not_worth_a_word_and_a_long_one_gets_one(arrays: Path) -> None:
    short = Forecast(trainer_of(arrays))
    assert [short.news(after(step, seconds)) for step, seconds in ((1, 0.0), (500, 5.0), (502, 200.0))] == [None] * 3
    long = Forecast(trainer_of(arrays))
    said = [long.news(after(step, seconds)) for step, seconds in ((1, 0.0), (11, 5.0), (21, 10.0))]
    assert [line is not None for line in said] == [False, True, False]
    assert said[1] is not None and said[1].endswith("if it does not stop early")


def test_times_are_as_exact_as_a_forecast() -> None:
    texts = [duration(seconds) for seconds in (31, 56, 840, 5000, 9000, 200_000)]
    assert texts == ["30 seconds", "1 minute", "14 minutes", "83 minutes", "2.5 hours", "2.3 days"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", end(86400))


@pytest.mark.slow
def test_init_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_folder(tmp_path / "photos")

    def said(*options: str) -> str:
        (tmp_path / "e.yaml").unlink(missing_ok=True)
        command = ["init", str(photos), "--output", str(tmp_path / "e.yaml"), "--no-pretrained", *options]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0 and (tmp_path / "e.yaml").exists()
        return done.stderr

    assert re.search(r"^to train it takes (about \S+ \w+|less than half a minute) on this machine$", said(), re.M)
    assert "to train it takes" not in said("--no-time")
    monkeypatch.setattr(dltrain.engine.builder, "build", lambda *_: 1 / 0)
    assert "to train it takes" not in said()  # what cannot be measured is not said, and nothing fails
