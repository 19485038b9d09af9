"""SIGINT, SIGTERM and SIGHUP at every moment: training stops between two steps, saved, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forking import Child, Zygote, processes_of_group, until
from rationing import except_for, some
from training import SLOW, result, write_experiment, write_folder

from dltrain.runs import checkpoints


def begin(zygote: Zygote, arrays: Path, folder: Path, setup: str = SLOW.format(0.15)) -> tuple[Child, Path]:
    """A training that has written its first checkpoint, and its run."""
    experiment = write_experiment(folder, {"data.name": "arrays", "data.path": str(arrays)})
    child = zygote.start("fit", experiment, "--runs", folder / "runs", output=folder / "output", setup=setup)
    run = folder / "runs" / "tiny" / "001"
    until((run / "checkpoints" / "last.pt").exists, 60, lambda: child.text)
    return child, run


@pytest.mark.parametrize("number", except_for([signal.SIGHUP], [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
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
    stuck = ("import time, dltrain.engine.seeding as s, dltrain.runs.run as r, dltrain.runs.keeping as k\n"
             "k.PAUSE, write = 0.0, r.Run.write_held\n"
             "def slow(run):\n"
             "    write(run)\n"
             "    s.seed_layers = lambda *_: time.sleep(60)\n"
             "r.Run.write_held = slow")  # fmt: skip
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


@pytest.mark.parametrize("moment", some(["while workers decode", "while workers start"], 2))
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


@pytest.mark.parametrize("seconds", [0.3, pytest.param(0.8, marks=pytest.mark.slow), 1.4])
def test_an_interrupt_while_modules_are_imported_prints_no_traceback(
    seconds: float, arrays: Path, tmp_path: Path
) -> None:
    """numpy and torch turn a KeyboardInterrupt that meets them into other errors. seconds: of computing."""
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    command = [sys.executable, "-m", "dltrain", "fit", str(experiment), "--runs", str(tmp_path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        ticks = seconds * os.sysconf("SC_CLK_TCK")
        stat = Path(f"/proc/{process.pid}/stat")
        until(lambda: int(stat.read_text().rpartition(")")[2].split()[11]) >= ticks, 60, lambda: "it does not start")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (130, "interrupted\n")
    assert not (tmp_path / "runs").exists()
