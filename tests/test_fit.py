"""`fit` as a person meets it: the run directory, signals, failures, and what is said about them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import signal
import struct
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forking import Child, Zygote, until
from training import arrays_experiment, assert_same_run, table, write_experiment, write_folder

from dltrain import ConfigError, Experiment, Run, checkpoints
from dltrain.console import Display
from dltrain.fit import fit
from dltrain.runs import RunError
from dltrain.trainer import Trainer

SLOW = "import time, dltrain.trainer as t; t.seed_layers = lambda *_: time.sleep({})"
"""Setup of a process whose steps take a while."""


def train(arrays: Path, folder: Path, **changes: Any) -> tuple[int, Run]:
    """A run in this process."""
    return fit(arrays_experiment(arrays, **changes), None, "cpu", Display(), runs=folder / "runs")


def result(run: Run | Path) -> dict[str, Any]:
    path = run.path if isinstance(run, Run) else run
    content: dict[str, Any] = json.loads((path / "result.json").read_text())
    return content


# -- the run directory


def test_a_run_directory_holds_what_was_promised(arrays: Path, tmp_path: Path) -> None:
    code, run = train(arrays, tmp_path, training__epochs=2)
    assert code == 0 and run.path == tmp_path / "runs" / "tiny" / "001"
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    (events,) = (name for name in names if name.startswith("events.out.tfevents."))
    assert names - {events, ".lock"} == {
        "experiment.yaml", "environment.json", "metrics.csv", "log.txt", "result.json",
        "checkpoints/last.pt", "checkpoints/best.pt",
    }  # fmt: skip
    told = result(run)
    assert (told["state"], told["why"], told["step"]) == ("finished", None, told["total_steps"])
    assert told["last"]["epoch"] == 2 and told["best_epoch"] in (1, 2) and told["images_per_second"] > 0
    facts = json.loads((run.path / "environment.json").read_text())
    assert facts["packages"]["torch"] == torch.__version__ and len(facts["data_fingerprint"]) > 8
    assert facts["seed"] == 0 and facts["plugins"] == {} and facts["command"]
    assert list(table(run.path)[0]) == [
        "epoch", "step", "train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "lr",
        "norm/gradient", "norm/weights",
    ]  # fmt: skip


def test_the_resolved_experiment_repeats_the_run(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    code, run = train(arrays, tmp_path, training__epochs=2)
    again = ("fit", run.path / "experiment.yaml", "--runs", tmp_path / "again")
    assert (code, zygote.run(*again, output=tmp_path / "output")) == (0, 0)
    assert_same_run(run.path, tmp_path / "again" / "tiny" / "001")


def test_the_event_file_has_images_and_hyperparameters(arrays: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, run = train(arrays, tmp_path, training__epochs=1)
    events = EventAccumulator(str(run.path))
    events.Reload()
    assert events.Tags()["images"] == ["train/images"]
    (picture,) = events.Images("train/images")
    assert (picture.width, picture.height) == (8 * 10, 3 * 10)  # 20 images in 3 rows, 8 pixels and a gap of 2
    assert {"train/loss", "validation/accuracy", "lr"} <= set(events.Tags()["scalars"])
    assert "_hparams_/session_start_info" in events.summary_metadata


# -- signals


def begin(zygote: Zygote, arrays: Path, folder: Path, setup: str = SLOW.format(0.05)) -> tuple[Child, Path]:
    """A training that has written its first checkpoint, and its run."""
    experiment = write_experiment(folder, {"data.name": "arrays", "data.path": str(arrays)})
    child = zygote.start("fit", experiment, "--runs", folder / "runs", output=folder / "output", setup=setup)
    run = folder / "runs" / "tiny" / "001"
    until((run / "checkpoints" / "last.pt").exists, 60, lambda: child.text)
    return child, run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_between_two_steps(
    number: signal.Signals, zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    child, run = begin(zygote, arrays, tmp_path)
    child.kill(number)
    assert child.wait(20) == 128 + number
    told = result(run)
    assert told["state"] == "interrupted" and told["why"] == number.name
    assert checkpoints.load(run / "checkpoints" / "last.pt")["step"] == told["step"] < told["total_steps"]
    assert f"interrupted at step {told['step']}; to go on: dltrain resume {run}\n" in child.text
    assert "Traceback" not in child.text
    assert zygote.run("resume", run, output=tmp_path / "resumed") == 0
    assert result(run)["state"] == "finished"


def test_a_second_interrupt_ends_the_training_at_once(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    stuck = ("import time, dltrain.trainer as t, dltrain.runs as r; save = r.Run.save\n"
             "def slow(run, *a, **k):\n"
             "    save(run, *a, **k)\n"
             "    t.seed_layers = lambda *_: time.sleep(60)\n"
             "r.Run.save = slow")  # fmt: skip
    child, run = begin(zygote, arrays, tmp_path, stuck)
    time.sleep(0.3)
    child.kill(signal.SIGINT)
    time.sleep(0.3)
    assert "interrupted" not in child.text
    child.kill(signal.SIGINT)
    assert child.wait(5) == 130
    assert f"dltrain resume {run}" in child.text and "Traceback" not in child.text
    assert result(run)["state"] == "interrupted"


def test_an_interrupt_while_the_data_is_read_leaves_nothing(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    slow = ("import time, dltrain.data.arrays as a\n"
            "a.read_arrays = lambda *_: print('reading', flush=True) or time.sleep(60)")  # fmt: skip
    child = zygote.start("fit", experiment, "--runs", tmp_path / "runs", output=tmp_path / "output", setup=slow)
    child.wait_for("reading")
    child.kill(signal.SIGINT)
    assert child.wait(5) == 130
    assert child.text == "reading\ninterrupted\n" and not (tmp_path / "runs").exists()


def processes_of_group(group: int) -> list[int]:
    """The processes that a command left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[2] == str(group):
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("moment", ["while workers start", "while workers decode"])
def test_an_interrupt_from_the_terminal_leaves_no_worker(moment: str, zygote: Zygote, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the workers too."""
    root = write_folder(tmp_path / "images")
    data = {"name": "image_folder", "root": str(root), "size": 8, "loader": "streaming", "workers": 2, "validation": 0}
    changes = {"data": data, "training.batch_size": 8, "training.early_stopping": None, "training.epochs": 500}
    experiment = write_experiment(tmp_path, changes)
    arguments = ("fit", experiment, "--runs", tmp_path / "runs", "training.checkpoint_every=1000")
    child = zygote.start(*arguments, output=tmp_path / "output", setup=SLOW.format(0.02))
    child.wait_for("  workers" if moment == "while workers start" else "epoch   1")
    time.sleep(0.5)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(60) == 130
    assert "Traceback" not in child.text and "dltrain resume" in child.text
    until(lambda: not processes_of_group(child.pid), 10, lambda: "workers are left")


# -- failures


def finite(path: Path) -> bool:
    return checkpoints.all_finite(torch.load(path, weights_only=True))


def test_a_loss_that_is_no_number_stops_the_run(
    arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.perf_counter()
    code, run = train(
        arrays, tmp_path, optimizer__lr=1e30, schedule={"name": "constant"}, training__clip_norm=None,
        training__epochs=500,
    )  # fmt: skip
    assert code == 1 and time.perf_counter() - started < 3
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
                tensor.view(-1)[0] = torch.inf

    monkeypatch.setattr(Trainer, "_train_step", poisoned)
    code, run = train(arrays, tmp_path)
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
from dltrain.models.base import Model
from torch import OutOfMemoryError, nn

class Greedy(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layer = nn.Linear(shape.channels * shape.height * shape.width, classes)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls > 12:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return self.layer(x.flatten(1))

class GreedyModel(Model):
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


def test_a_broken_image_found_while_training_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "images")
    for path in (root / "dark").iterdir():
        path.write_bytes(path.read_bytes()[:60])
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


# -- the display


def screen(zygote: Zygote, folder: Path, arrays: Path, setup: str, width: int = 120, keys: bytes = b"") -> str:
    """What a terminal receives from a training. keys: typed once the live line shows."""
    experiment = write_experiment(folder, {"data.name": "arrays", "data.path": str(arrays), "training.epochs": 4})
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    clean = "import os\n[os.environ.pop(name, 0) for name in ('COLUMNS', 'NO_COLOR')]\nos.environ['TERM'] = 'xterm'"
    setup = f"{clean}\n{SLOW.format(0.07)}\n{setup}"
    child = zygote.start("fit", experiment, "--runs", folder / "runs", output=folder / "output", setup=setup,
                         tty=os.ttyname(slave))  # fmt: skip
    received = b""
    try:
        while b"to measure it" not in received and b"to go on" not in received:
            ready, _, _ = select.select([master], [], [], 60)
            assert ready, received
            received += os.read(master, 65536)
            if keys and b"accuracy" in received:
                os.write(master, keys)
                keys = b""
        assert child.wait() in (0, 130)
    finally:
        os.close(slave)
        os.close(master)
    return received.decode()


def test_on_a_terminal_a_live_line_is_drawn_a_few_times_a_second(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    started = time.perf_counter()
    text = screen(zygote, tmp_path, arrays, "")
    seconds = time.perf_counter() - started
    drawn = text.count("\r\x1b[2K")
    assert 4 <= drawn <= 4 * seconds + 8  # 0.25 s apart, and once more with each lasting line
    assert "the first step" in text and "images/s" in text and " left" in text and "━" in text
    assert "\x1b[1m" in text  # in colour
    lasting = [line for line in text.split("\r\n") if "validation loss" in line]
    assert len(lasting) == 4
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor comes back


def test_no_color_is_respected_and_narrow_terminals_keep_what_matters(
    zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    text = screen(zygote, tmp_path, arrays, "os.environ['NO_COLOR'] = '1'", width=64)
    assert not re.findall("\x1b\\[[0-9;]*3[0-9][0-9;]*m", text)
    live = [line for line in re.split("\r\x1b\\[2K|\r\n", text) if " left" in line]
    assert live and all(len(line) <= 64 and "images/s" not in line and "…" not in line for line in live)


def test_a_key_press_interrupts(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    text = screen(zygote, tmp_path, arrays, "", keys=b"\x03")
    assert "stopping after this step; a second time stops at once" in text
    assert "interrupted at step" in text and text.count("\x1b[?25h") == 1


def test_elsewhere_there_are_plain_lines(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), "training.epochs": 2})
    plain = "import dltrain.console as c; c.PLAIN_SECONDS = 0.4\n" + SLOW.format(0.1)
    child = zygote.start("fit", experiment, "--runs", tmp_path / "runs", output=tmp_path / "output", setup=plain)
    assert child.wait() == 0
    assert "\x1b" not in child.text and "\r" not in child.text
    lines = child.text.splitlines()
    assert [line[:9] for line in lines if "train loss" in line] == ["epoch 1/2", "epoch 2/2"]
    assert any("epoch 1/2  " in line and " left" in line for line in lines)  # a long epoch is not silent
    log = (tmp_path / "runs/tiny/001/log.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("epoch")] == [line for line in log if line.startswith("epoch")]
