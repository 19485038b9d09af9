"""Trainings that go wrong: what is kept, what is said, and what is never written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forking import Zygote
from training import result, table, train, write_experiment, write_folder

from dltrain import ConfigError, Experiment, Run
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.engine.trainer import Trainer
from dltrain.errors import RunError
from dltrain.runs import checkpoints, keeping


def finite(path: Path) -> bool:
    return checkpoints.all_finite(torch.load(path, weights_only=True))


def test_a_loss_that_is_no_number_stops_the_run(
    arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, run = train(
        arrays, tmp_path, optimizer__lr=1e30, schedule={"name": "constant"}, training__clip_norm=None,
        training__epochs=500,
    )  # fmt: skip
    assert code == 1 and result(run)["step"] < result(run)["total_steps"] == 2500
    message = capsys.readouterr().err
    assert "the loss became infinite or not a number in step 1 (learning rate 1e+30)\n" in message
    assert "no checkpoint had been written yet\na resume would repeat it exactly" in message
    assert f"dltrain fit {run.path / 'experiment.yaml'} optimizer.lr=1e+29\n" in message
    assert result(run)["state"] == "failed" and "in step 1" in result(run)["why"]
    assert not list(run.path.rglob("*.pt")) and "Traceback" not in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("where", ["weights", "average", "optimizer state"])
def test_weights_that_are_no_numbers_are_never_saved(
    where: str, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the loss of the last step was still finite."""
    step = Trainer._train_step

    def poisoned(self: Trainer, batch: Any, number: int) -> None:
        step(self, batch, number)
        if number == 9:
            parts = self.parts
            states = parts.optimizer.state.values()
            values = {"weights": parts.model.parameters(), "average": parts.average.model.parameters()}
            tensor = next(iter(values.get(where, (s["momentum_buffer"] for s in states))))
            with torch.no_grad():
                tensor[0] = torch.inf

    monkeypatch.setattr(Trainer, "_train_step", poisoned)
    code, run = train(arrays, tmp_path, training__checkpoint_every=9)
    assert code == 1
    assert f"the {where} became infinite or not a number in step 9" in capsys.readouterr().err
    assert checkpoints.load(run.last)["step"] == 5 and finite(run.last) and finite(run.best)
    assert len(table(run.path)) == 1


def test_a_step_that_the_gradient_scaler_skips_is_no_failure(arrays: Path, tmp_path: Path) -> None:
    """float16: the gradients overflow until the scale has come down; the loss itself is finite all the time."""
    code, run = train(arrays, tmp_path, training__precision="float16", training__epochs=5)
    state = checkpoints.load(run.last)
    assert code == 0 and 0 < state["scaler"]["scale"] < 65536.0 * 2
    assert finite(run.last)


def test_a_first_step_that_the_scaler_skips_is_no_failure(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's fused SGD would then train on with uninitialised memory as its momentum."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**124))
    code, run = train(arrays, tmp_path, training__precision="float16", training__epochs=3)
    state = checkpoints.load(run.last)
    assert code == 0 and finite(run.last) and state["scaler"]["scale"] < 2.0**124


PLUGIN = '''
from typing import Literal
from dltrain.models.base import ImageModel
from torch import OutOfMemoryError, nn

class Greedy(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layer = nn.Linear(shape.size, classes)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls > 12:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return self.layer(x.flatten(1))

class GreedyModel(ImageModel):
    """Takes all memory."""
    name: Literal["greedy"] = "greedy"
    def build(self, shape, classes):
        return Greedy(shape, classes)
'''


def test_out_of_memory_says_what_to_change(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PLUGIN)
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), "model": "greedy"})
    arguments = ("fit", experiment, "--runs", tmp_path / "runs", "--plugin", tmp_path / "parts.py")
    child = zygote.start(*arguments, output=tmp_path / "output")
    assert child.wait() == 1
    run = tmp_path / "runs" / "tiny" / "001"
    again = f"  dltrain fit {run / 'experiment.yaml'}"
    assert "out of memory with 10 images at a time on cpu; what takes less:\n" in child.text
    assert f"{again} training.accumulate=4  # the same batch in parts of 5\n" in child.text
    assert f"{again} training.batch_size=10 optimizer.lr=0.025  # lr scaled along\n" in child.text
    assert f"the last good checkpoint is {run / 'checkpoints' / 'last.pt'}\n" in child.text
    assert f"to go on from there: dltrain resume {run} --plugin {tmp_path / 'parts.py'}\n" in child.text
    assert "Traceback" not in child.text
    # a plug-in is never imported because a run or a checkpoint names it
    child = zygote.start("resume", run, output=tmp_path / "second")
    assert child.wait() == 2
    assert child.text == f"error: the run needs its plug-in: dltrain resume {run} --plugin {tmp_path / 'parts.py'}\n"
    (tmp_path / "parts.py").write_text(PLUGIN.replace("> 12", "> 10**9"))
    child = zygote.start("resume", run, "--plugin", tmp_path / "parts.py", output=tmp_path / "third")
    assert child.wait() == 0 and "has changed since the run began" in child.text


def test_any_other_failure_keeps_its_traceback_in_the_log(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer._train_step

    def broken(self: Trainer, batch: Any, number: int) -> None:
        if number == 7:
            raise ZeroDivisionError("boom")
        step(self, batch, number)

    monkeypatch.setattr(Trainer, "_train_step", broken)
    code, run = train(arrays, tmp_path)
    message = capsys.readouterr().err
    assert code == 1 and "Traceback" not in message
    assert f"training failed: ZeroDivisionError: boom\nthe traceback is in {run.path / 'log.txt'}\n" in message
    assert f"the last good checkpoint is {run.last}\nto go on from there: dltrain resume {run.path}\n" in message
    assert "Traceback" in (run.path / "log.txt").read_text()
    assert result(run)["why"] == "ZeroDivisionError: boom"


def test_a_full_disk_keeps_the_last_checkpoint(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync, count = os.fsync, 0

    def full(file: int) -> None:
        nonlocal count
        count += 1
        if count > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(keeping, "PAUSE", 0.0)
    code, run = train(arrays, tmp_path)
    message = capsys.readouterr().err
    assert code == 1 and f"cannot write to {run.path}: no space left on device\n" in message
    assert f"dltrain resume {run.path}" in message
    monkeypatch.undo()
    assert checkpoints.load(run.last)["step"] > 0
    assert not list(run.path.rglob("*.tmp"))


def test_a_runs_folder_that_cannot_be_written_is_a_wrong_request(arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write to .*runs.*: "):
        train(arrays, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__path": "nowhere.npz"}, "nowhere.npz"),
        ({"training__batch_size": 1000}, "a batch of 1000 is larger than the training split"),
        ({"data__validation": 1}, "validation"),
    ],
)
def test_what_only_the_data_shows_is_refused_before_anything_is_made(
    changes: dict[str, Any], message: str, arrays: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(arrays, tmp_path, **changes)
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_an_image_that_breaks_before_its_batch_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path / "images")

    def cut(*_: object) -> tuple[dict[str, object], list[object]]:  # when all files have been looked at
        for path in (root / "dark").iterdir():
            path.write_bytes(path.read_bytes()[:60])
        return {}, []

    monkeypatch.setattr("dltrain.commands.fit._plan", cut)
    data = {"name": "image_folder", "root": str(root), "size": 8, "loader": "streaming", "workers": 0,
            "validation": 0, "scaling": "none"}  # fmt: skip
    changes = {"data": data, "training.batch_size": 8, "training.early_stopping": None}
    experiment = Experiment.load(write_experiment(tmp_path, changes))
    code, run = fit(experiment, None, "cpu", Display(), runs=tmp_path / "runs")
    message = capsys.readouterr().err
    assert code == 1 and "dark" in message and "Traceback" not in (run.path / "log.txt").read_text()


def test_yaml_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.write_json("result.json", {"a": float("inf"), "b": [float("nan"), 1.0]})
    assert yaml.safe_load((tmp_path / "run" / "result.json").read_text()) == {"a": None, "b": [None, 1.0]}
    run.close()


def test_a_failing_compiler_says_how_to_go_on_without_it(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch._dynamo.exc import InternalTorchDynamoError

    def fail(*_: object) -> None:
        raise InternalTorchDynamoError("file too short")

    monkeypatch.setattr("dltrain.engine.trainer.Trainer._train_step", fail)
    code, run = train(arrays, tmp_path)
    shown = capsys.readouterr().err
    assert code == 1
    assert "its cache may hold a file that a killed process left half-written" in shown
    assert f"dltrain fit {run.path / 'experiment.yaml'} training.compile=false" in shown
