"""A training that is killed and resumed gives what an uninterrupted one gives, bit for bit."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import Child, Zygote, processes_of_group, until
from learning import write_targets
from rationing import only
from training import (
    arrays_experiment,
    assert_same_run,
    assert_same_state,
    table,
    trained,
    write_arrays,
    write_experiment,
    write_folder,
)

from dltrain import build
from dltrain.runs import checkpoints

EVERY_STEP = (
    "import functools, dltrain.engine.builder as b\n"
    "b.LoopSettings = functools.partial(b.LoopSettings, progress_seconds=0.0)"
)
"""Report, and so save, after each step."""

ALWAYS = ("resident", "streaming, stopping early")
"""The recipes that are killed in the tests of every day; the others are stopped and gone on with in one process."""
RECIPES: dict[str, dict[str, Any]] = {
    "resident": {},
    "streaming, stopping early": {"data.loader": "streaming", "seed": 1, "training.epochs": 12,
                                  "training.early_stopping": {"patience": 1, "metric": "validation/accuracy"}},
    "bfloat16": {"training.precision": "bfloat16", "seed": 2, "schedule": {"name": "cosine"},
                 "optimizer": {"name": "adamw", "lr": 0.01}},
    "bare": {"seed": 3, "augmentation": [], "data.validation": 0, "training.early_stopping": None,
             "training.average": None, "training.clip_norm": None, "training.epochs": 4.5},
    "chains": {"model": {"name": "restricted_boltzmann_machine", "hidden": 8, "chains": 4}, "loss": "mse",
               "data.scaling": "none", "training.average": None, "training.epochs": 2},
    "drawn codes": {"model": {"name": "variational_autoencoder", "hidden": [8], "code": 2}, "loss": "mse",
                    "training.epochs": 2},
}  # fmt: skip


class Killer:
    """Starts, kills and resumes one run until it is finished. kills: how often SIGKILL met it alive."""

    def __init__(self, zygote: Zygote, experiment: Path, folder: Path) -> None:
        self.zygote, self.experiment, self.folder, self.kills = zygote, experiment, folder, 0
        folder.mkdir(exist_ok=True)
        self.run = folder / "runs" / "tiny" / "001"

    def start(self, setup: str = EVERY_STEP) -> Child:
        begun = (self.run / "experiment.yaml").exists()
        command = ("resume", self.run) if begun else ("fit", self.experiment, "--runs", self.folder / "runs")
        if not begun and self.run.exists():  # killed before it was a run: the next one is 002
            self.run = self.run.with_name(f"{int(self.run.name) + 1:03d}")
        return self.zygote.start(*command, output=self.folder / "output", setup=setup)

    def kill_after(self, seconds: float) -> None:
        child = self.start()
        try:
            code = child.wait(seconds)
        except AssertionError:
            child.kill()
            code = child.wait()
        assert code in (0, -9), child.text
        self.kills += code == -9

    def finish(self) -> None:
        child = self.start()
        assert child.wait() == 0, child.text


def uninterrupted(zygote: Zygote, experiment: Path, folder: Path) -> Path:
    output = folder / "reference.txt"
    assert zygote.run("fit", experiment, "--runs", folder / "reference", output=output) == 0, output.read_text()
    return folder / "reference" / "tiny" / "001"


@pytest.mark.parametrize("recipe", only(ALWAYS, RECIPES))
def test_killed_at_random_moments(recipe: str, zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), **RECIPES[recipe]})
    zygote.capture("--version")  # it is warm from now on
    started = time.perf_counter()
    reference = uninterrupted(zygote, experiment, tmp_path)
    seconds = time.perf_counter() - started  # on the machine as it is now
    killer, draw = Killer(zygote, experiment, tmp_path), random.Random(recipe)
    for _ in range(3):
        killer.kill_after(seconds * draw.uniform(0.2, 0.8))
    killer.finish()
    assert killer.kills >= 1
    assert len(table(reference)) < 12 or "stopping early" not in recipe
    assert_same_run(reference, killer.run)


TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "regression": ("numbers", {"loss": "huber"}),
    "binary_classification": ("classes", {"loss": {"name": "binary_cross_entropy", "pos_weight": "balanced"}}),
    "multilabel": ("labels", {"loss": {"name": "focal", "form": "sigmoid"}}),
}
"""What each learns, and from what."""


@pytest.mark.parametrize("task", only(["multilabel"], TASKS))
def test_every_task_goes_on_exactly(task: str, zygote: Zygote, tmp_path: Path) -> None:
    """Killed inside an epoch, after one has ended: its sums and its thresholds are as they were."""
    kind, changes = TASKS[task]
    data = write_targets(tmp_path / "data.npz", kind)
    early = {"training.early_stopping": {"patience": 4, "metric": "validation/loss"}, "training.epochs": 3}
    arrays = {"data.name": "arrays", "data.path": str(data), "task": task, **early, **changes}
    experiment = write_experiment(tmp_path, arrays)
    reference = uninterrupted(zygote, experiment, tmp_path)
    killer = Killer(zygote, experiment, tmp_path)
    child = killer.start("import dltrain.engine.trainer as t, os; s = t.Trainer._train_step\n" + EVERY_STEP + "\n"
                         "def step(self, batch, number):\n"
                         "    if number == 8: os.kill(os.getpid(), 9)\n"
                         "    s(self, batch, number)\n"
                         "t.Trainer._train_step = step")  # fmt: skip
    assert child.wait() == -9, child.text
    killer.finish()
    assert_same_run(reference, killer.run)
    kept = checkpoints.load(killer.run / "checkpoints/last.pt")
    assert ("task" in kept) == (task != "regression")


def test_killed_while_worker_processes_decode(zygote: Zygote, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    changes = {"data": {"name": "image_folder", "root": str(root), "size": 8, "loader": "streaming", "workers": 1}}
    changes |= {"training.batch_size": 8, "training.epochs": 2, "augmentation": ["random_resized_crop", "mixup"]}
    changes |= {"data.validation": 0, "training.early_stopping": None}
    experiment = write_experiment(tmp_path, changes)
    reference = uninterrupted(zygote, experiment, tmp_path)
    killer = Killer(zygote, experiment, tmp_path)
    child = killer.start("import dltrain.engine.trainer as t, os; s = t.Trainer._train_step\n" + EVERY_STEP + "\n"
                         "def step(self, batch, number):\n"
                         "    if number == 5: os.kill(os.getpid(), 9)\n"
                         "    s(self, batch, number)\n"
                         "t.Trainer._train_step = step")  # fmt: skip
    assert child.wait() == -9
    until(lambda: not processes_of_group(child.pid), 10, lambda: "workers, or the server that forked them, are left")
    killer.finish()
    assert_same_run(reference, killer.run)


WRITTEN_AFTER_THE_SECOND_EPOCH = """
import os
import dltrain.engine.trainer as t, dltrain.runs.keeping as k
train = t.Trainer._train_step
def step(self, batch, number):
    k.PAUSE = 0.0 if number == 9 else 1e9
    if number == {number}:
        os.kill(os.getpid(), 9)
    train(self, batch, number)
t.Trainer._train_step = step
"""


def test_killed_before_short_epochs_were_written(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    """5 steps an epoch. What was not written is trained again: also where the best epoch is among it."""
    changes = {"data.name": "arrays", "data.path": str(arrays), "training.checkpoint_every": 9}
    experiment = write_experiment(tmp_path, {**changes, "training.epochs": 6})
    reference = uninterrupted(zygote, experiment, tmp_path)
    for number, kept in ((9, None), (10, 10), (22, 10)):
        killer = Killer(zygote, experiment, tmp_path / str(number))
        assert killer.start(WRITTEN_AFTER_THE_SECOND_EPOCH.format(number=number)).wait() == -9
        last = killer.run / "checkpoints/last.pt"
        assert (checkpoints.load(last)["step"] if last.exists() else None) == kept
        assert len(table(killer.run)) == (kept or 0) // 5
        killer.finish()
        assert_same_run(reference, killer.run)


KILL_AT_SYNC = """
import os
sync, count = os.fsync, 0
def fsync(file):
    global count
    count += 1
    if count == {number}:
        os.kill(os.getpid(), 9)
    sync(file)
os.fsync = fsync
"""


@pytest.mark.parametrize("numbers", [(3, 5, 11, 14), pytest.param((1, 8, 12, 16), marks=pytest.mark.slow)])
def test_killed_within_every_kind_of_write(
    numbers: tuple[int, ...], zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    """Each file and each rename is synced: stop at the 1st, 2nd, ... one. Nothing is left half-written."""
    changes = {"data.name": "arrays", "data.path": str(arrays), "training.epochs": 2, "training.checkpoint_every": 9}
    experiment = write_experiment(tmp_path, changes)
    reference = uninterrupted(zygote, experiment, tmp_path)
    # 1-10: experiment.yaml, environment.json, plan.json, metrics.csv, result.json; then best.pt, last.pt, ...
    for number in numbers:
        killer = Killer(zygote, experiment, tmp_path / str(number))
        assert killer.start(KILL_AT_SYNC.format(number=number)).wait() == -9
        killer.finish()
        assert_same_run(reference, killer.run)
        assert not list(killer.run.rglob("*.tmp")) and (killer.run / "environment.json").exists()


def test_killed_after_the_last_checkpoint_the_results_are_completed(
    zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), "training.epochs": 2})
    reference = uninterrupted(zygote, experiment, tmp_path)
    killer = Killer(zygote, experiment, tmp_path)
    setup = (
        "import os\nfrom dltrain.runs.recording import Recordings as R\nepoch = R.epoch\n"
        "R.epoch = lambda self, row: os.kill(os.getpid(), 9) if row['epoch'] == 2 else epoch(self, row)"
    )
    assert killer.start(setup).wait() == -9
    killer.finish()
    assert_same_run(reference, killer.run)
    assert '"state": "finished"' in (killer.run / "result.json").read_text()
    # and now there is nothing to do
    before = {path: path.stat().st_mtime_ns for path in killer.run.rglob("*") if path.is_file()}
    child = killer.start()
    assert child.wait() == 0 and "finished already" in child.text
    assert before == {path: path.stat().st_mtime_ns for path in killer.run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("recipe", "stop"),
    [*(("resident", stop) for stop in (1, 4, 5, 6, 9, 10, 12)), *((name, 6) for name in RECIPES if name not in ALWAYS)],
)
def test_state_dict_at_any_step_continues_exactly(recipe: str, stop: int, arrays: Path, tmp_path: Path) -> None:
    """5 steps an epoch: inside an epoch, on both sides of its end, and shortly before the end."""
    experiment = arrays_experiment(arrays, **RECIPES[recipe], training__epochs=2.6)
    whole = trained(experiment)
    checkpoints.save(trained(experiment, until=stop).state_dict(), tmp_path / "at.pt")
    second = build(experiment, "cpu", checkpoints.load(tmp_path / "at.pt"))
    second.load_state_dict(checkpoints.load(tmp_path / "at.pt"))
    for _ in second.run():
        pass
    assert whole.step == second.step >= 13
    assert_same_state(whole.state_dict(), second.state_dict())


@pytest.mark.slow
def test_a_compiled_network_continues_exactly(arrays: Path, tmp_path: Path) -> None:
    experiment = arrays_experiment(arrays, training__compile=True, training__epochs=2)
    whole = trained(experiment)
    assert whole.about["decisions"]["compile"]["value"] is True
    checkpoints.save(trained(experiment, until=3).state_dict(), tmp_path / "at.pt")
    torch._dynamo.reset()
    second = build(experiment, "cpu", checkpoints.load(tmp_path / "at.pt"))
    second.load_state_dict(checkpoints.load(tmp_path / "at.pt"))
    for _ in second.run():
        pass
    assert_same_state(whole.state_dict(), second.state_dict())


def test_a_run_in_use_is_not_resumed_by_another_process(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    run = tmp_path / "runs" / "tiny" / "001"
    slow = "import time, dltrain.engine.seeding as s; s.seed_layers = lambda *_: time.sleep(0.2)"
    first = zygote.start("fit", experiment, "--runs", tmp_path / "runs", output=tmp_path / "first", setup=slow)
    until((run / "checkpoints" / "last.pt").exists, 60, lambda: first.text)
    second = zygote.start("resume", run, output=tmp_path / "second")
    assert second.wait() == 2
    assert second.text == f"error: {run} is being trained by another process\n"
    first.kill()
    assert first.wait() == -9
    assert zygote.run("resume", run, output=tmp_path / "third") == 0


def test_what_was_changed_since_the_run_began_is_named(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "b.npz")
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(data), "training.epochs": 2})
    killer = Killer(zygote, experiment, tmp_path)
    stop = (
        "import os, dltrain.runs.keeping as k, dltrain.runs.recording as r\n"
        "k.PAUSE, r.Recordings.epoch = 0.0, lambda *_: os.kill(os.getpid(), 9)"
    )
    assert killer.start(stop).wait() == -9
    resolved = killer.run / "experiment.yaml"
    text = resolved.read_text()
    resolved.write_text(text.replace("dropout: 0.3", "dropout: 0.2"))
    child = killer.start()
    assert child.wait() == 2 and "is not what the run began with" in child.text
    resolved.write_text(text)
    write_arrays(data, examples=153)
    child = killer.start()
    assert child.wait() == 2 and "the data has changed since the run began" in child.text
    write_arrays(data)
    killer.finish()
