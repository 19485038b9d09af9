"""`fit` as a person meets it: the run directory, and what is drawn while it trains."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import struct
import termios
import time
from pathlib import Path

import torch
from forking import Zygote
from training import SLOW, assert_same_run, result, table, train, write_experiment


def test_a_run_directory_holds_what_was_promised(arrays: Path, tmp_path: Path) -> None:
    code, run = train(arrays, tmp_path, training__epochs=2)
    assert code == 0 and run.path == tmp_path / "runs" / "tiny" / "001"
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    (events,) = (name for name in names if name.startswith("events.out.tfevents."))
    assert names - {events, ".lock"} == {
        "experiment.yaml", "environment.json", "plan.json", "metrics.csv", "log.txt", "result.json",
        "checkpoints/last.pt", "checkpoints/best.pt",
    }  # fmt: skip
    told = result(run)
    assert (told["state"], told["why"], told["step"]) == ("finished", None, told["total_steps"])
    assert told["last"]["epoch"] == 2 and told["best_epoch"] in (1, 2) and told["images_per_second"] > 0
    facts = json.loads((run.path / "environment.json").read_text())
    assert facts["packages"]["torch"] == torch.__version__ and len(facts["data_fingerprint"]) > 8
    assert facts["seed"] == 0 and facts["plugins"] == {} and facts["command"]
    plan = json.loads((run.path / "plan.json").read_text())
    assert plan["steps"] == told["total_steps"] and plan["decisions"] == facts["decisions"]
    assert list(table(run.path)[0]) == [
        "epoch", "step", "train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "lr",
        "norm/gradient", "norm/weights",
        *(f"smoothed/{split}/{metric}" for split in ("train", "validation") for metric in ("loss", "accuracy")),
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
    plain = "import dltrain.console.display as c; c.PLAIN_SECONDS = 0\n" + SLOW.format(0.1)
    child = zygote.start("fit", experiment, "--runs", tmp_path / "runs", output=tmp_path / "output", setup=plain)
    assert child.wait() == 0
    assert "\x1b" not in child.text and "\r" not in child.text
    lines = child.text.splitlines()
    assert [line[:9] for line in lines if "train loss" in line] == ["epoch 1/2", "epoch 2/2"]
    assert any("epoch 1/2  " in line and " left" in line for line in lines)  # a long epoch is not silent
    log = (tmp_path / "runs/tiny/001/log.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("epoch")] == [line for line in log if line.startswith("epoch")]
