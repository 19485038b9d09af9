"""`dltrain resume` where something differs: what is possible goes on and says so, the rest is a clear refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import scalars, table, write_folder
from typer.testing import CliRunner, Result

from dltrain.cli import app
from dltrain.engine.trainer import Trainer
from dltrain.runs import checkpoints

TEXT = """
data: {name: image_folder, root: photos, validation: 0.2, size: 8}
model: {name: mlp, hidden: [8], dropout: 0.2}
optimizer: {name: adamw, lr: 0.01}
training: {epochs: 4, batch_size: 8}
"""


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a finished run `runs/e/001` of 4 epochs, and one that stopped after 2, `runs/e/002`."""
    folder = tmp_path_factory.mktemp("made")
    write_folder(folder / "photos")
    (folder / "e.yaml").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert invoke("fit", "e.yaml").exit_code == 0
        finish = Trainer.finish_epoch

        def stopping(trainer: Trainer) -> Any:
            if len(trainer.history) == 2:
                raise KeyboardInterrupt
            return finish(trainer)

        patch.setattr(Trainer, "finish_epoch", stopping)
        assert invoke("fit", "e.yaml").exit_code == 130
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    folder = Path(shutil.copytree(made, tmp_path / "place"))
    monkeypatch.chdir(folder)
    return folder


def state(run: str) -> dict[str, Any]:
    return checkpoints.load(Path(run, "checkpoints/last.pt"))


def same_weights(one: str, other: str) -> bool:
    a, b = state(one)["model"], state(other)["model"]
    return all(np.array_equal(a[key], b[key]) for key in a)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_moved_data_is_found_by_its_new_place(place: Path) -> None:
    (place / "photos").rename(place / "pictures")
    before = files(place / "runs")
    plain = invoke("resume", "runs/e/002")
    assert plain.exit_code == 2 and "dltrain resume runs/e/002 data.root=PLACE" in plain.stderr
    assert set(files(place / "runs")) == set(before)
    result = invoke("resume", "runs/e/002", "data.root=pictures")
    assert result.exit_code == 0, result.stderr
    assert same_weights("runs/e/001", "runs/e/002")
    resumed = json.loads(Path("runs/e/002/environment.json").read_text())["resumed"]
    assert resumed[-1]["changes"] == {"data.root": ["photos", "pictures"]} and resumed[-1]["step"] == 8
    assert invoke("resume", "runs/e/002").exit_code == 0  # the run knows the place now
    assert invoke("eval", "runs/e/002").exit_code == 0


def test_other_data_at_the_new_place_is_refused(place: Path) -> None:
    shutil.copytree("photos", "pictures")
    next(Path("pictures/dark").iterdir()).unlink()
    result = invoke("resume", "runs/e/002", "data.root=pictures")
    assert result.exit_code == 2 and "the data has changed since the run began" in result.stderr
    assert "root: photos" in Path("runs/e/002/experiment.yaml").read_text()


@pytest.mark.parametrize(
    "override", ["optimizer.lr=0.5", "training.batch_size=4", "seed=1", "data.size=9", "model=mlp"]
)
def test_what_was_trained_with_cannot_change(place: Path, override: str) -> None:
    before = files(place / "runs")
    result = invoke("resume", "runs/e/002", override)
    assert result.exit_code == 2
    assert (
        f"`{override.partition('=')[0]}` cannot change when a run is continued; what can: data.root," in result.stderr
    )
    assert f"dltrain fit runs/e/002/experiment.yaml {override}\n" in result.stderr
    assert files(place / "runs") == before


def test_a_finished_run_can_be_made_longer(place: Path) -> None:
    done = invoke("resume", "runs/e/001")
    assert done.exit_code == 0 and "is finished already; it trains longer with training.epochs=8" in done.stderr
    rows = table(Path("runs/e/001"))
    result = invoke("resume", "runs/e/001", "training.epochs=8")
    assert result.exit_code == 0, result.stderr
    assert (
        "the training ends at step 32 instead of 16: what was trained stays, and the schedule is stretched"
        in result.stderr
    )
    longer = table(Path("runs/e/001"))
    assert longer[:4] == rows and [row["epoch"] for row in longer] == [str(k) for k in range(1, 9)]
    assert state("runs/e/001")["step"] == 32
    rates = [float(row["lr"]) for row in longer]
    assert rates[4] > rates[3] and rates[7] < 0.001  # the cosine of 8 epochs
    assert "epochs: 8" in Path("runs/e/001/experiment.yaml").read_text()
    resumed = json.loads(Path("runs/e/001/environment.json").read_text())["resumed"]
    assert resumed[-1]["changes"] == {"training.epochs": [4.0, 8.0]} and resumed[-1]["step"] == 16
    assert json.loads(Path("runs/e/001/plan.json").read_text()) != json.loads(Path("runs/e/002/plan.json").read_text())
    assert [step for step, _ in scalars(Path("runs/e/001"))["train/loss"]] == [4 * k for k in range(1, 9)]
    shorter = invoke("resume", "runs/e/001", "training.epochs=6")
    assert (
        shorter.exit_code == 2
        and "a run can become longer, not shorter: `training.epochs` of this one is 8" in shorter.stderr
    )


def test_a_longer_training_that_is_interrupted_is_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("runs/e/001", "runs/e/003")
    assert invoke("resume", "runs/e/001", "training.epochs=8").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert invoke("resume", "runs/e/003", "training.epochs=8").exit_code == 130
    assert invoke("resume", "runs/e/003").exit_code == 0  # its checkpoint is still that of 4 epochs
    assert same_weights("runs/e/001", "runs/e/003")


@pytest.mark.parametrize(
    ("package", "name"), [("torch", "torch"), ("dltrain", "dltrain"), ("timm", "timm"), (None, "python")]
)
def test_other_versions_are_named(place: Path, package: str | None, name: str) -> None:
    def older(about: dict[str, Any]) -> None:
        (about if package is None else about["packages"])[name] = "0.0.1"

    edit(Path("runs/e/002/environment.json"), older)
    result = invoke("resume", "runs/e/002")
    assert result.exit_code == 0
    assert f"warning: the run began with {name} 0.0.1; with {name} " in result.stderr
    assert "it is continued, but not bit-exactly" in result.stderr


def test_nothing_is_said_when_nothing_differs(place: Path) -> None:
    result = invoke("resume", "runs/e/002")
    assert result.exit_code == 0 and "warning" not in result.stderr
    assert same_weights("runs/e/001", "runs/e/002")


def test_the_environment_decides_the_threads(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    result = invoke("resume", "runs/e/002")
    assert result.exit_code == 0
    assert "the run began with 1 threads; with OMP_NUM_THREADS=2 last digits may differ" in result.stderr
    assert state("runs/e/002")["about"]["decisions"]["threads"]["value"] == 2
    assert "OMP_NUM_THREADS in the environment" in state("runs/e/002")["about"]["decisions"]["threads"]["reason"]


def on_a_gpu(run: Path) -> None:
    """Make a run one that began on a GPU."""
    values = {"device": "cuda:9", "graph": True, "compile": True}

    def moved(decisions: dict[str, Any]) -> None:
        for name, value in values.items():
            decisions[name] = {"value": value, "reason": "there"}

    edit(run / "environment.json", lambda about: moved(about["decisions"]))
    content = checkpoints.load(run / "checkpoints/last.pt")
    moved(content["about"]["decisions"])
    for group in content["optimizer"]["param_groups"]:
        group |= {"fused": True, "foreach": None, "capturable": True}
    checkpoints.save({key: value for key, value in content.items() if key != "format"}, run / "checkpoints/last.pt")


def test_a_run_of_a_gpu_goes_on_without_one_when_it_is_asked_to(place: Path) -> None:
    on_a_gpu(place / "runs/e/002")
    before = files(place / "runs")
    result = invoke("resume", "runs/e/002")
    assert result.exit_code == 2 and "the run began on cuda:9: there is no device cuda:9" in result.stderr
    assert "dltrain resume runs/e/002 --device c" in result.stderr
    assert files(place / "runs") == before
    result = invoke("resume", "runs/e/002", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "the run began on cuda:9; on cpu it is continued, but not bit-exactly" in result.stderr
    decisions = state("runs/e/002")["about"]["decisions"]
    assert decisions["device"]["value"] == "cpu" and decisions["compile"]["value"] is False
    assert same_weights("runs/e/001", "runs/e/002")  # nothing of it was on a GPU


@pytest.mark.parametrize("command", ["resume", "eval"])
def test_a_sweep_is_no_run(place: Path, command: str) -> None:
    (place / "s.yaml").write_text(
        TEXT + "sweep: {trials: 1, space: {optimizer.lr: {low: 1.0e-3, high: 0.1, log: true}}}\n"
    )
    assert invoke("sweep", "s.yaml", "training.epochs=1").exit_code == 0
    before = files(place / "runs/s")
    result = invoke(command, "runs/s/sweep-001")
    assert (
        result.exit_code == 2 and "is a sweep, not a run; to go on: dltrain sweep runs/s/sweep-001\n" in result.stderr
    )
    assert files(place / "runs/s") == before


def test_a_tensorboard_that_is_open_reads_on(place: Path) -> None:
    """No file that it has open is changed or deleted, and the next one begins where the training goes on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Path("runs/e/002")
    reader = EventAccumulator(str(run))
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [4, 8]
    old = {path: path.read_bytes() for path in run.glob("events.out.tfevents.*")}
    assert invoke("resume", run).exit_code == 0
    assert {path: path.read_bytes() for path in old} == old and len(list(run.glob("events.out.tfevents.*"))) == 2
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [4, 8, 12, 16]


def test_points_beyond_the_checkpoint_are_forgotten(place: Path) -> None:
    """After a resume from an earlier checkpoint."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Path("runs/e/001")
    reader = EventAccumulator(str(run))
    reader.Reload()
    shutil.copy("runs/e/002/checkpoints/last.pt", run / "checkpoints/last.pt")
    assert invoke("resume", run).exit_code == 0
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [4, 8, 12, 16]
