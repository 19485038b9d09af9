"""What shows a run: the contract of all recorders, a plug-in of one's own, what fails, and what is replayed later."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import until
from PIL import Image
from test_earlier_runs import EARLIER
from training import result, scalars, table
from typer.testing import CliRunner, Result

from dltrain import Experiment, Run
from dltrain.cli import app
from dltrain.config.section import _index
from dltrain.runs.events import read_images, read_scalars
from dltrain.runs.recorders.base import About, Recorder
from dltrain.runs.recorders.tensorboard import TensorBoard
from dltrain.runs.recording import Recordings
from dltrain.testing import RecorderContract

PLUGIN = '''
"""A recorder that keeps what it is told."""

from typing import Literal

from dltrain.runs.recorders.base import Recorder, Recording

TOLD = []


class Memory(Recorder):
    """Keeps what it is told in memory."""

    name: Literal["memory"] = "memory"
    fails_at: int | None = None
    """The step at which it fails."""
    full: bool = False
    """Whether it fails like a full disk."""

    def build(self):
        return MemoryRecording(self)


class MemoryRecording(Recording):
    def __init__(self, options):
        self.options = options

    def start(self, about, history, step):
        if self.options.fails_at == 0:
            raise PermissionError("not logged in")
        TOLD.append(("start", about.title, dict(about.hyperparameters), [row["step"] for row in history], step))

    def step(self, row):
        if self.options.fails_at is not None and row["step"] >= self.options.fails_at:
            raise OSError(28, "no space") if self.options.full else ConnectionError("the server is gone")
        TOLD.append(("step", row["step"], row["train/loss"]))

    def images(self, name, grid, step=0):
        TOLD.append(("images", name, tuple(grid.shape)))

    def figure(self, name, figure):
        TOLD.append(("figure", name, figure.name))

    def close(self, state):
        TOLD.append(("close", state))
'''
MISSING = '''
from typing import Literal

from dltrain.runs.recorders.base import About, Recorder
from dltrain.runs.recorders.tensorboard import TensorBoard


class Elsewhere(Recorder):
    """Needs what is not there."""

    library, install = "no_such_library", "no-such-library"
    name: Literal["elsewhere"] = "elsewhere"

    def build(self):
        raise AssertionError
'''
TEXT = """
data: {{name: arrays, path: {path}, validation: 0.2, test: 0}}
model: {{name: mlp, hidden: [8]}}
training: {{epochs: 2, batch_size: 6, log_every: 7}}
"""
STEPS = [7, 14, 20, 27, 34, 40]


class TestRecorders(RecorderContract):
    names = Recorder.all_names()


class Commands:
    """Commands in this process with the plug-in `memory`, and what it was told by the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Any] = []

    def run(self, *arguments: object) -> Result:
        done = CliRunner().invoke(app, [*map(str, arguments), "--plugin", str(self.folder / "memory.py")])
        entry = Recorder.lookup("memory")
        assert entry is not None
        told = sys.modules[entry.__module__].TOLD
        self.told = list(told)
        told.clear()
        return done

    def fit(self, arrays: Path, *overrides: str) -> tuple[Result, Path]:
        (self.folder / "e.yaml").write_text(TEXT.format(path=arrays))
        done = self.run("fit", self.folder / "e.yaml", "--runs", self.folder / "runs", "--device", "cpu", *overrides)
        return done, max((self.folder / "runs/e").iterdir())

    def about(self, what: str) -> list[Any]:
        return [each[1:] for each in self.told if each[0] == what]

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.about("step")]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """The catalogue is afterwards as it was."""
    assert PLUGIN.count("\n") <= 60
    monkeypatch.setattr(Recorder, "catalogue", list(Recorder.catalogue))
    (tmp_path / "memory.py").write_text(PLUGIN)
    (tmp_path / "missing.py").write_text(MISSING)
    before = set(sys.modules)
    yield Commands(tmp_path)
    _index.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("dltrain_plugin_"):
            del sys.modules[name]


def weights(run: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = Run(run).checkpoint("last")[1]["model"]
    return model


def test_a_recorder_of_ones_own_is_told_everything_in_order(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    done, run = memory.fit(arrays, "recorders=[memory]")
    assert done.exit_code == 0, done.stderr
    start = memory.told[0]
    assert start[:2] == ("start", "e/001") and start[2]["training.log_every"] == 7 and start[3:] == ([], 0)
    assert memory.told[1] == ("images", "train/images", (3, 10, 60)) and memory.told[-1] == ("close", "finished")
    assert memory.steps == STEPS
    assert not list(run.glob("events.*")) and len(table(run)) == 2


def test_the_weights_do_not_depend_on_what_is_shown(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    runs = [memory.fit(arrays, override)[1] for override in ("recorders=[]", "recorders=[memory, tensorboard]")]
    one, other = map(weights, runs)
    assert all(torch.equal(one[key], other[key]) for key in one) and table(runs[0]) == table(runs[1])
    assert {path.name for path in runs[0].iterdir()} == {
        "experiment.yaml", "environment.json", "plan.json", "metrics.csv", "log.txt", "result.json", "checkpoints",
        ".lock",
    }  # fmt: skip


def test_one_that_fails_is_left_out_and_the_training_goes_on(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    done, run = memory.fit(arrays, "recorders=[{name: memory, fails_at: 20}, tensorboard]")
    assert done.exit_code == 0 and result(Run(run))["state"] == "finished"
    assert done.stderr.count("recorder `memory` failed, and the training goes on without it: ConnectionError") == 1
    assert f"dltrain record {run} memory" in done.stderr.replace("\n", "")
    assert memory.told[-1] == ("close", "failed") and memory.steps == [7, 14]
    assert [step for step, _ in scalars(run)["lr"]] == STEPS and len(table(run)) == 2
    assert "Traceback" in (run / "log.txt").read_text()
    text = memory.fit(arrays, "recorders=[{name: memory, fails_at: 0}]")[0].stderr
    assert 0 < text.index("PermissionError: not logged in") < text.index("epoch 1/2")


def test_a_full_disk_is_an_error_of_the_run(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    done, run = memory.fit(arrays, "recorders=[{name: memory, fails_at: 20, full: true}]")
    assert done.exit_code == 1 and f"cannot write to {run}" in done.stderr.replace("\n", "")
    assert result(Run(run))["state"] == "failed"


def test_a_missing_library_stops_before_anything_is_created(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TEXT.format(path=arrays) + "recorders:\n  - tensorboard\n  - elsewhere\n")
    plugin = ["--plugin", str(tmp_path / "missing.py")]
    arguments = ["fit", str(tmp_path / "e.yaml"), "--runs", str(tmp_path / "runs"), *plugin]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and not (tmp_path / "runs").exists()
    assert "needs the library no_such_library" in done.stderr and f"{tmp_path}/e.yaml:7:5" in done.stderr
    assert "pip install 'no-such-library'" in done.stderr
    assert CliRunner().invoke(app, ["check", str(tmp_path / "e.yaml"), *plugin]).exit_code == 0


def test_a_run_is_continued_with_other_recorders(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    _, whole = memory.fit(arrays, "recorders=[]")
    _, run = memory.fit(arrays, "recorders=[]", "training.epochs=1", "schedule=constant")
    resumed = ["resume", run, "recorders=[memory]", "training.epochs=2", "training.log_every=null"]
    assert memory.run(*resumed).exit_code == 0
    assert memory.told[0][3:] == ([20], 20) and memory.told[0][2]["training.log_every"] == 7  # what the run began with
    assert memory.steps == [22, 24, 26, 28, 30, 32, 34, 36, 38, 40]
    assert [each.name for each in Experiment.load(run / "experiment.yaml").recorders] == ["memory"]
    assert memory.run("resume", whole, "optimizer.lr=1").exit_code == 2


def test_a_run_is_replayed(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    _, run = memory.fit(arrays, "recorders=[memory, tensorboard]")
    live, images, steps = memory.told, memory.about("images"), memory.about("step")
    (run / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(run / "figures/confusion.png")
    assert memory.run("record", run, "memory").exit_code == 0
    assert memory.told[0] == ("start", "e/001", live[0][2], [], 40) and memory.told[-1] == ("close", "finished")
    assert memory.about("images") == images and memory.about("figure") == [("confusion", "confusion.png")]
    assert memory.about("step") == [(step, pytest.approx(loss)) for step, loss in steps]
    failed = memory.run("record", run, "memory", "fails_at=20")
    assert failed.exit_code == 2 and "recorder `memory` failed: ConnectionError: the server is gone" in failed.stderr
    for wrong in (["memori"], ["memory", "fail_at=3"]):
        done = memory.run("record", run, *wrong)
        assert done.exit_code == 2 and "did you mean `" in done.stderr


def test_a_run_of_before_is_replayed(memory: Commands, tmp_path: Path) -> None:
    """It was interrupted, holds no hyperparameters, and its event files are lost."""
    run = shutil.copytree(EARLIER, tmp_path / "runs/old/001")
    assert memory.run("record", run, "tensorboard").exit_code == 0
    assert memory.run("record", run, "memory").exit_code == 0
    rows = table(run)
    assert memory.steps == [int(row["step"]) for row in rows]
    assert memory.told[0][2]["model.name"] == Experiment.load(run / "experiment.yaml").model.name
    assert memory.about("close") == [("interrupted",)]
    before = scalars(run)
    assert memory.run("record", run, "tensorboard").exit_code == 0
    assert scalars(run) == before and [step for step, _ in before["train/loss"]] == [int(row["step"]) for row in rows]


def test_a_follower_shows_nothing(tmp_path: Path) -> None:
    recordings = Recordings([TensorBoard()], leads=False)
    recordings.start(About(tmp_path, "tiny", {}, [], {}), [], 0)
    recordings.epoch({"step": 1, "epoch": 1})
    recordings.close("finished")
    assert not recordings and list(tmp_path.iterdir()) == []


def test_event_files_hold_what_they_held_before_there_were_recorders(arrays: Path, tmp_path: Path) -> None:
    """All tags in the order of writing, their steps and their values."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    (tmp_path / "e.yaml").write_text(TEXT.format(path=arrays))
    assert CliRunner().invoke(app, ["fit", str(tmp_path / "e.yaml"), "--runs", str(tmp_path)]).exit_code == 0
    run = tmp_path / "e/001"
    (file,) = run.glob("events.*")
    events = [Event.FromString(record) for record in RawEventFileLoader(str(file)).Load()]
    assert events[0].file_version == "brain.Event:2"
    found = [(event.step, value.tag) for event in events for value in event.summary.value]
    hyperparameters = ["experiment", "session_start_info", "session_end_info"]
    expected = [(0, "custom_scalars__config__"), *((0, f"_hparams_/{name}") for name in hyperparameters)]
    expected += [(0, "train/images")]
    with (run / "metrics.csv").open() as lines:
        columns = [tag for tag in next(lines).strip().split(",") if "/" in tag or tag == "lr"]
        columns = [tag for tag in columns if not tag.startswith("smoothed/")]
    for step in STEPS:
        expected += [(step, tag) for tag in (columns if step % 20 == 0 else ["train/loss", "lr"])]
    assert found == expected
    rows = {int(row["step"]): row for row in table(run)}
    for step, row in read_scalars(run).items():
        if step in rows:
            assert all(row[tag] == pytest.approx(float(text)) for tag, text in rows[step].items() if tag in row)
    (grid,) = read_images(run).values()
    assert grid.shape == (3, 10, 60)


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_every_point_once(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    done, run = memory.fit(arrays, "recorders=[mlflow, tensorboard]")
    assert done.exit_code == 0 and "failed" not in done.stderr, done.stderr
    for _ in range(2):
        assert memory.run("record", run, "mlflow").exit_code == 0
    with sqlite3.connect(tmp_path / "runs/mlflow.db") as base:
        assert base.execute("select count(*), status from runs").fetchall() == [(1, "FINISHED")]
        steps = base.execute("select step from metrics where key = 'train/loss' order by step").fetchall()
        parameters = dict(base.execute("select key, value from params").fetchall())
    assert [step for (step,) in steps] == STEPS and parameters["model.name"] == "mlp"
    assert len(list((tmp_path / "runs/mlflow").rglob("images.png"))) == 1


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_a_run_in_its_directory(memory: Commands, arrays: Path, tmp_path: Path) -> None:
    done, run = memory.fit(arrays, "recorders=[{name: wandb, project: tiny}, tensorboard]")
    assert done.exit_code == 0 and "failed" not in done.stderr, done.stderr
    until(lambda: wandb_steps(run) == STEPS, 20, lambda: wandb_steps(run))  # its own process writes it
    assert memory.run("resume", run, "training.epochs=3").exit_code == 0
    until(lambda: wandb_steps(run) == [*STEPS, 47, 54, 60], 20, lambda: wandb_steps(run))
    _, other = memory.fit(arrays)
    assert memory.run("record", other, "wandb").exit_code == 0
    until(lambda: wandb_steps(other) == STEPS, 20, lambda: wandb_steps(other))
    assert len(list(other.rglob("wandb/offline-*/files/media/images/train/*.png"))) == 1


def wandb_steps(run: Path) -> list[int]:
    """The steps of `train/loss` in the offline files of a run: logs of records of LevelDB, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        data, at, record = path.read_bytes(), 7, b""
        while at < len(data):
            if 2**15 - at % 2**15 < 7:
                at += 2**15 - at % 2**15
                continue
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            record, at = record + data[at + 7 : at + 7 + length], at + 7 + length
            if kind in (1, 4):  # whole, or its last part
                history = Record.FromString(record).history
                row = {item.nested_key[0]: item.value_json for item in history.item}
                found += [int(row["_step"])] if "train/loss" in row else []
                record = b""
    return found
