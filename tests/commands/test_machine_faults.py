"""Faults of the machine: a full disk, lost memory, a lost process. They stop a training or a sweep with a message, what
was saved stays sound, and no setting is judged by them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from forking import Zygote
from sweeping import ranking, sweep, write_experiment
from training import assert_same_run, result
from training import write_experiment as write_everything

import dltrain.sweeps.trial as trial_module
from dltrain.data.loading.streaming import LostWorkerError
from dltrain.runs import checkpoints
from dltrain.runs.recording import Recordings
from dltrain.runs.reports import NonFiniteError
from dltrain.runs.run import Run

LIMIT = "import resource, sys; sys.dont_write_bytecode = True; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
"""No file of the process may become larger: what a full disk does, but for the error's number. Python itself would keep
a cut-off module, and every later process would stumble over it."""


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


# -- a training


def test_events_that_no_longer_fit_end_the_training_soundly(zygote: Zygote, tmp_path: Path) -> None:
    """They are written in the training's own thread: no other one can fail with a traceback."""
    text = "data: digits\nmodel: {name: mlp, hidden: [8]}\ntraining: {epochs: 100, batch_size: 128, limit_batches: 1}\n"
    (tmp_path / "e.yaml").write_text(text)
    arguments = ("fit", tmp_path / "e.yaml", "--runs", tmp_path / "runs")
    every = "import dltrain.runs.keeping as k; k.PAUSE = 0.0\n"  # the first checkpoints are small enough
    child = zygote.start(*arguments, output=tmp_path / "output", setup=every + LIMIT.format(20000))
    run = tmp_path / "runs/e/001"
    assert child.wait() == 1
    assert "Traceback" not in child.text and f"cannot write to {run}: file too large\n" in child.text
    assert f"dltrain resume {run}" in child.text
    assert result(run)["state"] == "failed" and "file too large" in result(run)["why"]
    assert checkpoints.load(run / "checkpoints/last.pt")["step"] == result(run)["step"] > 0
    assert zygote.run("resume", run, output=tmp_path / "resumed") == 0
    assert zygote.run(*arguments, output=tmp_path / "whole") == 0
    assert_same_run(tmp_path / "runs/e/002", run)


def test_a_disk_that_is_full_from_the_start_is_no_wrong_request(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_everything(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    child = zygote.start("fit", experiment, "--runs", tmp_path, output=tmp_path / "output", setup=LIMIT.format(100))
    assert child.wait() == 1
    assert child.text.startswith("error: cannot write to ") and len(child.text.splitlines()) == 1


def test_a_run_that_cannot_be_written_is_not_resumed(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_everything(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    assert zygote.run("fit", experiment, "training.epochs=1", "--runs", tmp_path, output=tmp_path / "output") == 0
    run = tmp_path / "tiny/001"
    read_only = (
        "import errno, os; opened = os.open\n"
        "def refused(path, flags, *rest, **more):\n"
        "    if flags & (os.O_WRONLY | os.O_RDWR):\n"
        "        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)\n"
        "    return opened(path, flags, *rest, **more)\n"
        "os.open = refused"
    )
    child = zygote.start("resume", run, output=tmp_path / "second", setup=read_only)
    assert child.wait() == 2
    assert child.text.startswith(f"error: cannot write to {run}: read-only file system\n")


# -- a sweep


def test_a_sweep_that_met_a_full_disk_makes_its_trials_again(zygote: Zygote, yaml: Path, tmp_path: Path) -> None:
    expected = tmp_path / "whole"
    assert sweep(yaml, "sweep.trials=2", "--runs", expected).exit_code == 0
    arguments = ("sweep", yaml, "sweep.trials=2", "--runs", tmp_path / "runs")
    child = zygote.start(*arguments, output=tmp_path / "output", setup=LIMIT.format(5000))
    folder = tmp_path / "runs/tiny/sweep-001"
    assert child.wait() == 1
    assert "trial 1 was stopped: cannot write to " in child.text and "file too large" in child.text
    assert f"to go on: dltrain sweep {folder}\n" in child.text and "Traceback" not in child.text
    assert ranking(folder) == []
    assert sweep(folder).exit_code == 0
    assert ranking(folder) == ranking(expected / "tiny/sweep-001")


@pytest.mark.parametrize(
    ("owner", "number"),
    [
        (Run, errno.ENOSPC), (checkpoints, errno.EIO),
        *(pytest.param(Run, number, marks=pytest.mark.slow) for number in (errno.EIO, errno.EROFS)),
        *(pytest.param(checkpoints, number, marks=pytest.mark.slow) for number in (errno.ENOSPC, errno.EROFS)),
    ],
)  # fmt: skip
def test_no_trial_is_judged_by_the_disk(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, number: int
) -> None:
    """At the begin of a trial, at its checkpoints, and where the sweep itself writes."""
    name = "create" if owner is Run else "write"
    made, original = [], getattr(owner, name)

    def full(*arguments: Any, **options: Any) -> Any:
        made.append(name)
        if len(made) > 2:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        if owner is Run:
            patch.setattr(Path, "mkdir", _failing_below("trials", "002", number, Path.mkdir))
        else:
            patch.setattr(owner, name, full)
        result = sweep(yaml, "sweep.trials=3", "--runs", tmp_path)
    folder = tmp_path / "tiny/sweep-001"
    assert result.exit_code == 1 and f"{os.strerror(number).lower()}\n" in result.stderr
    assert f"dltrain sweep {folder}" in result.stderr and len(ranking(folder)) == 1
    assert sweep(folder).exit_code == 0
    assert [row["reason"] for row in ranking(folder)] == ["", "", ""]


def _failing_below(parent: str, name: str, number: int, mkdir: Any) -> Any:
    def failing(path: Path, *arguments: Any, **options: Any) -> None:
        if (parent, name) in zip(path.parts, path.parts[1:]):
            raise OSError(number, os.strerror(number))
        mkdir(path, *arguments, **options)

    return failing


def breaking(monkeypatch: pytest.MonkeyPatch, errors: dict[int, Exception]) -> list[int]:
    """Let the k-th training of the sweep end with an error. Returns the list of those that were begun."""
    begun: list[int] = []
    originals = {name: getattr(trial_module, name) for name in ("fit_by_epochs", "resume_by_epochs")}

    def of(name: str) -> Any:
        def training(*arguments: Any, **options: Any) -> Any:
            begun.append(len(begun))
            if begun[-1] in errors:
                raise errors[begun[-1]]
            return originals[name](*arguments, **options)

        return training

    for name in originals:
        monkeypatch.setattr(trial_module, name, of(name))
    return begun


LOST = LostWorkerError("a process that decodes images was killed")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"), pytest.param(MemoryError(), marks=pytest.mark.slow),
        pytest.param(LOST, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_a_setting_may_bring_about_counts_the_second_time(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Else a setting that needs more memory than there is would stop the sweep for ever."""
    breaking(monkeypatch, {1: error, 2: error})
    first = sweep(yaml, "sweep.trials=3", "--runs", tmp_path)
    folder = tmp_path / "tiny/sweep-001"
    assert first.exit_code == 1 and "counts as failed if it happens again" in first.stderr
    assert len(ranking(folder)) == 1
    assert sweep(folder).exit_code == 0
    rows = ranking(folder)
    assert [int(row["trial"]) for row in rows if row["reason"]] == [2] and len(rows) == 3
    assert sweep(folder, "--retry-failed").exit_code == 0
    assert [row["reason"] for row in ranking(folder)] == ["", "", ""]


def test_a_sweep_stops_after_three_failures_alike(yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: dict[int, Exception] = {k: ValueError(f"broken {k}") for k in (1, 2, 3)}
    with monkeypatch.context() as patch:
        begun = breaking(patch, errors)
        stopped = sweep(yaml, "sweep.trials=5", "--runs", tmp_path)
    folder = tmp_path / "tiny/sweep-001"
    assert stopped.exit_code == 1 and stopped.stdout == "" and len(begun) == 4
    assert "3 trials in a row have failed alike: ValueError: broken 3\n" in stopped.stderr
    assert f"dltrain sweep {folder} --retry-failed\n" in stopped.stderr
    assert [row["reason"] for row in ranking(folder)][1:] == [f"ValueError: broken {k}" for k in (1, 2, 3)]
    assert sweep(folder).exit_code == 0  # the others
    assert len(ranking(folder)) == 5
    expected = tmp_path / "whole"
    assert sweep(yaml, "sweep.trials=5", "--runs", expected).exit_code == 0
    assert sweep(folder, "--retry-failed").exit_code == 0
    assert ranking(folder) == ranking(expected / "tiny/sweep-001")


def test_unlike_failures_do_not_stop_a_sweep(yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {1: ValueError("a"), 2: TypeError("b"), 3: ValueError("c")}
    breaking(monkeypatch, errors)
    assert sweep(yaml, "sweep.trials=4", "--runs", tmp_path).exit_code == 0


@pytest.mark.parametrize(("diverging", "code"), [((0, 1, 2), 1), ((1, 2, 3), 0)])
def test_divergence_stops_a_sweep_only_while_nothing_has_succeeded(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diverging: tuple[int, ...], code: int
) -> None:
    """A wide range has settings that diverge: to find them out is what a search is for."""
    breaking(monkeypatch, {k: NonFiniteError(k, 0.1, "loss") for k in diverging})
    result = sweep(yaml, "sweep.trials=4", "--runs", tmp_path)
    assert (result.exit_code, "narrow the search" in result.stderr) == (code, code == 1)
    assert len(ranking(tmp_path / "tiny/sweep-001")) == (3 if code else 4)


def test_retry_needs_a_sweep(yaml: Path) -> None:
    result = sweep(yaml, "--retry-failed")
    assert result.exit_code == 2 and "--retry-failed needs an earlier sweep" in result.stderr


def test_a_trial_with_a_damaged_checkpoint_begins_anew(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Recordings, "epoch", full)
        assert sweep(yaml, "sweep.trials=1", "--runs", tmp_path).exit_code == 1
    folder = tmp_path / "tiny/sweep-001"
    last = folder / "trials/001/checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    assert sweep(folder).exit_code == 0
    assert sweep(yaml, "sweep.trials=1", "--runs", tmp_path).exit_code == 0
    assert ranking(folder) == ranking(tmp_path / "tiny/sweep-002")


def test_a_sweep_whose_data_has_moved_goes_on(yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a trial that was interrupted, whose own experiment.yaml names the old place."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Recordings, "epoch", full)
        assert sweep(yaml, "sweep.trials=2", "--runs", tmp_path).exit_code == 1
    moved = (tmp_path / "images.npz").rename(tmp_path / "moved.npz")
    folder = tmp_path / "tiny/sweep-001"
    assert sweep(folder).exit_code == 2
    assert sweep(folder, f"data.path={moved}").exit_code == 0
    assert [row["reason"] for row in ranking(folder)] == ["", ""]
    assert sweep(folder).exit_code == 0  # the sweep knows the place now
    assert str(moved) in (folder / "best.yaml").read_text()
