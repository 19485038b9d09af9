"""A checkpoint is written whole or not at all, refused when damaged, and cannot run code."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from training import arrays_experiment, assert_same_state, trained

from dltrain import Run, Trainer
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.engine.predictor import restore_predictor
from dltrain.errors import RunError
from dltrain.runs import checkpoints
from dltrain.runs.checkpoints import CheckpointError


@pytest.fixture(scope="module")
def trainer(arrays: Path) -> Trainer:
    return trained(arrays_experiment(arrays, training__epochs=1))


@pytest.fixture(scope="module")
def saved(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "last.pt"
    checkpoints.save(trainer.state_dict(), path)
    return path


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Run:
    """A run with two sound checkpoints."""
    run = Run.create(tmp_path / "run")
    for path in (run.last, run.best):
        shutil.copy(saved, path)
    run.close()
    return run


def refused(run: Run, content: bytes) -> str:
    """Why a last checkpoint of this content is refused; the best one must be offered."""
    run.last.write_bytes(content)
    with pytest.raises(RunError) as caught:
        run.checkpoint("last")
    message = str(caught.value)
    assert message.startswith(str(run.last)), message
    assert message.endswith(f"\n{run.best} is sound: give that path instead"), message
    return message


def test_what_is_saved_is_loaded(trainer: Trainer, saved: Path) -> None:
    state = checkpoints.load(saved)
    assert state.pop("format") == checkpoints.FORMAT
    assert_same_state({**trainer.state_dict()}, state)


def test_plain_torch_loads_it_safely(saved: Path) -> None:
    for options in ({}, {"mmap": True}):
        state = torch.load(saved, weights_only=True, **options)
        assert {"about", "step", "history", "model", "average", "optimizer", "scaler", "metrics"} <= set(state)
        assert {"experiment", "target", "preprocessing", "decisions", "fingerprint"} <= set(state["about"])
    assert zipfile.ZipFile(saved).testzip() is None


def test_only_plain_types_are_saved(saved: Path) -> None:
    def check(value: Any) -> None:
        assert type(value) in (dict, list, tuple, str, int, float, bool, type(None), torch.Tensor) or (
            type(value).__name__ == "OrderedDict"
        ), type(value)
        if isinstance(value, dict):
            assert all(type(key) in (str, int) for key in value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
            check(inner)

    check(torch.load(saved, weights_only=True))


def test_every_cut_is_refused(run: Run, saved: Path) -> None:
    data = saved.read_bytes()
    for tenth in range(1, 10):
        assert "was cut short" in refused(run, data[: len(data) * tenth // 10])
    assert "was cut short" in refused(run, data[:-1])
    assert "is empty" in refused(run, b"")


def test_every_flipped_byte_is_refused(run: Run, saved: Path) -> None:
    data, draw = saved.read_bytes(), random.Random(0)
    for place in [0, len(data) - 1, *draw.sample(range(len(data)), 200)]:
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        assert "is damaged" in (message := refused(run, bytes(changed))) or "was cut short" in message


def test_another_format_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT", 99)
    buffer = run.path / "future.pt"
    checkpoints.save({"step": 1}, buffer)
    monkeypatch.undo()
    assert "has checkpoint format 99; this version of dltrain reads format 1" in refused(run, buffer.read_bytes())


def test_foreign_files_are_refused(run: Run) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("readme.txt", "not a checkpoint")
    plain = io.BytesIO()
    torch.save({"model": {}}, plain)
    for content in (zipped.getvalue(), plain.getvalue(), b"text" * 1000, pickle.dumps({"format": 1})):
        assert "is not a dltrain checkpoint" in refused(run, content)
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        checkpoints.load(run.path)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_malicious_pickle_does_not_run(run: Run, tmp_path: Path) -> None:
    target, file = tmp_path / "owned", tmp_path / "evil.pt"
    checkpoints.save({"step": Malicious(target)}, file)  # with a digest that fits
    assert "that can be opened safely: it holds more than plain values" in refused(run, file.read_bytes())
    torch.save({"step": Malicious(target)}, file)
    assert "is not a dltrain checkpoint" in refused(run, file.read_bytes())
    file.write_bytes(pickle.dumps(Malicious(target)))
    refused(run, file.read_bytes())
    assert not target.exists()


def test_a_missing_checkpoint_is_named_and_the_other_offered(run: Run) -> None:
    run.best.unlink()
    with pytest.raises(RunError, match=rf"has no best checkpoint\n{run.last} is sound"):
        run.checkpoint("best")
    run.last.write_bytes(b"")
    with pytest.raises(RunError, match=r"last.pt is empty$"):
        run.checkpoint("last")


def test_best_and_last_never_share_a_file(run: Run, trainer: Trainer) -> None:
    run.hold(trainer.state_dict(), best=True)
    run.write_held()
    assert not run.best.samefile(run.last)
    assert run.best.read_bytes() == run.last.read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_temporary(
    run: Run, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.last.read_bytes()
    run.hold(trainer.state_dict())

    def fail(_: int) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        run.write_held()
    assert run.last.read_bytes() == before and not list(run.path.rglob("*.tmp"))


def test_temporaries_of_dead_processes_are_removed(run: Run) -> None:
    left = [run.last.with_name(".last.pt.4000001.tmp"), run.path / ".result.json.4000001.tmp"]
    for path in left:
        path.write_bytes(b"half")
    run.lock()
    run.close()
    assert not any(path.exists() for path in left) and run.last.exists()


def test_infinite_numbers_are_found_and_large_ones_are_not_infinite() -> None:
    big = torch.full((4,), 1e38)
    assert checkpoints.all_finite({"a": [big, torch.tensor([1, 2])], "b": (torch.zeros(0), "x", None)})
    for bad in (torch.inf, -torch.inf, torch.nan):
        assert not checkpoints.all_finite({"a": [{"b": torch.tensor([big[0], bad])}]})


def test_versions_of_modules_survive(arrays: Path, tmp_path: Path) -> None:
    """torchvision's MNASNet changes itself when it loads a state that does not say its version."""
    experiment = arrays_experiment(
        arrays, data__size=64, model="torchvision/mnasnet0_5", training__epochs=1, training__batch_size=16,
        training__limit_batches=1, training__accumulate=1, augmentation=[],
    )  # fmt: skip
    code, run = fit(experiment, None, "cpu", Display(quiet=True), runs=tmp_path)
    state = checkpoints.load(run.last)
    assert code == 0 and state["model"]._metadata[""]["version"] == 2
    predictor = restore_predictor(state, "cpu")
    assert_same_state(dict(predictor.model.state_dict()), dict(state["average"]))
