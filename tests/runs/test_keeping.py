"""What a training writes while it goes on: short epochs share a checkpoint, and nothing is lost but by SIGKILL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training import arrays_experiment, assert_same_run, result, table
from training import train as trained_run

from dltrain.commands.fit import fit, fit_by_epochs, resume
from dltrain.console.display import Display
from dltrain.engine.trainer import Trainer
from dltrain.runs import checkpoints, keeping
from dltrain.runs.run import Run

RARELY: dict[str, Any] = {"training__checkpoint_every": 9}
"""Minutes: no checkpoint inside an epoch, however busy the machine is."""


def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the checkpoints in the order in which they are written from now on."""
    written: list[str] = []
    write = checkpoints.write

    def noted(packed: Any, path: Path) -> None:
        written.append(path.name)
        write(packed, path)

    monkeypatch.setattr(checkpoints, "write", noted)
    return written


def test_short_epochs_share_a_checkpoint(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And give the files that a checkpoint after every epoch gives, though the best epoch is not the last."""
    written = writes(monkeypatch)
    monkeypatch.setattr(keeping, "PAUSE", 0.0)
    judged = {"metric": "validation/loss", "patience": 9}
    options = {"training__epochs": 6, "optimizer__lr": 0.5, **RARELY, "training__early_stopping": judged}
    _, each = trained_run(arrays, tmp_path, **options)
    assert written.count("last.pt") == 6
    monkeypatch.setattr(keeping, "PAUSE", 1e9)
    del written[:]
    _, at_once = trained_run(arrays, tmp_path, **options)
    assert written == ["best.pt", "last.pt"]
    assert result(each)["best_epoch"] < 6 and len(table(at_once.path)) == 6
    assert_same_run(each.path, at_once.path)


def test_a_failure_loses_no_epoch(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PAUSE", 1e9)
    step = Trainer._train_step

    def failing(self: Trainer, batch: Any, number: int) -> None:
        if number == 13:
            raise RuntimeError("a kernel is broken")
        step(self, batch, number)

    monkeypatch.setattr(Trainer, "_train_step", failing)
    code, run = trained_run(arrays, tmp_path, **RARELY)
    assert code == 1 and result(run)["state"] == "failed"
    assert checkpoints.load(run.last)["step"] == 10
    assert [row["epoch"] for row in table(run.path)] == ["1", "2"]


def test_the_pause_is_short_and_a_long_epoch_is_written_at_its_end(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keeping.PAUSE <= 1.0
    monkeypatch.setattr(keeping.Keeper, "seconds", property(lambda self: keeping.PAUSE + 0.1))
    written = writes(monkeypatch)
    trained_run(arrays, tmp_path, training__epochs=3, **RARELY)
    assert written.count("last.pt") == 3


def test_a_training_that_is_parked_keeps_all_its_epochs(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PAUSE", 1e9)
    experiment = arrays_experiment(arrays, training__epochs=4, **RARELY)
    whole = tmp_path / "whole"
    fit(experiment, whole, "cpu", Display(quiet=True))
    path = tmp_path / "parked"
    training = fit_by_epochs(experiment, path, "cpu", Display(quiet=True))
    next(training)  # it has begun
    next(training)
    next(training)
    with pytest.raises(StopIteration):
        training.send(True)
    run = Run(path)
    assert checkpoints.load(run.last)["step"] == 10 and len(table(path)) == 2
    assert (result(run)["state"], result(run)["why"]) == ("interrupted", "parked")
    assert resume(str(path), "cpu", Display(quiet=True))[0] == 0
    assert_same_run(whole, path)
