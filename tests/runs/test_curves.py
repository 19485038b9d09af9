"""What TensorBoard shows of a run: points within epochs, charts, and the settings that were chosen."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from training import table
from typer.testing import CliRunner

import dltrain.engine.seeding
from dltrain import Experiment, Run, build
from dltrain.cli import app
from dltrain.runs.recorders.csv import read_table, smooth
from dltrain.runs.recording import Recordings
from dltrain.runs.reports import EpochReport

TEXT = """
data: {{name: arrays, path: {path}, validation: 0.2, test: 0}}
model: {{name: mlp, hidden: [8], dropout: 0.2}}
optimizer: {{lr: 0.1}}
augmentation: [horizontal_flip]
training: {{epochs: 2, batch_size: 4, accumulate: 2}}
"""
STEPS = [*range(3, 28, 3), 30, *range(33, 58, 3), 60]
"""Ten points in each epoch of 30 steps."""


@pytest.fixture(scope="module")
def run(arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs of 30 steps."""
    folder = tmp_path_factory.mktemp("curves")
    (folder / "e.yaml").write_text(TEXT.format(path=arrays))
    fit(folder, "training.clip_norm=null", "schedule=constant")
    return folder / "runs/e/001"


def fit(folder: Path, *overrides: str) -> None:
    arguments = ["fit", str(folder / "e.yaml"), "--runs", str(folder / "runs"), "--device", "cpu", *overrides]
    assert CliRunner().invoke(app, arguments).exit_code == 0


def read(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return events


def points(run: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(run).Scalars(tag)]


def test_an_epoch_has_ten_points_of_the_loss_and_the_learning_rate(run: Path) -> None:
    assert [step for step, _ in points(run, "train/loss")] == STEPS
    assert [step for step, _ in points(run, "lr")] == STEPS
    assert [step for step, _ in points(run, "validation/loss")] == [30, 60]
    assert [row["step"] for row in table(run)] == ["30", "60"]


def test_a_point_is_the_mean_of_the_epoch_so_far(run: Path) -> None:
    trainer = build(Experiment.load(run / "experiment.yaml"), "cpu")
    trainer.settings = replace(trainer.settings, progress_seconds=0.0)  # an event after each step
    means, sent = {}, []
    for event in trainer.run():
        means[event.step] = event.metrics["train/loss"] if isinstance(event, EpochReport) else event.metrics["loss"]
        sent += [int(point["step"]) for point in event.points]
    trainer.close()
    assert dict(points(run, "train/loss")) == pytest.approx({step: means[step] for step in STEPS})
    assert sent == [step for step in STEPS if step % 30]


def test_a_short_epoch_has_its_end_alone(arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TEXT.format(path=arrays))
    fit(tmp_path, "training.batch_size=8")
    assert [step for step, _ in points(tmp_path / "runs/e/001", "train/loss")] == [15, 30]


def test_a_resume_within_an_epoch_repeats_no_point(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on from a checkpoint behind which points were written already."""
    add = Recordings.steps

    def fails_late(self: Recordings, found: list[dict[str, Any]]) -> None:
        add(self, found)
        if any(point["step"] > 40 for point in found):
            raise RuntimeError("the machine fails")

    seed = dltrain.engine.seeding.seed_layers
    (tmp_path / "e.yaml").write_text((run / "experiment.yaml").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(Recordings, "steps", fails_late)
        patch.setattr(dltrain.engine.seeding, "seed_layers", lambda *given: (time.sleep(0.03), seed(*given)))
        command = ["fit", str(tmp_path / "e.yaml"), "--runs", str(tmp_path), "training.checkpoint_every=1e-9"]
        assert CliRunner().invoke(app, command).exit_code == 1
    (again,) = tmp_path.glob("*/001")
    begun, (_, state) = points(again, "train/loss"), Run(again).checkpoint("last")
    assert 30 < state["step"] < begun[-1][0]
    assert CliRunner().invoke(app, ["resume", str(again)]).exit_code == 0
    assert points(again, "train/loss") == points(run, "train/loss")
    assert points(again, "lr") == points(run, "lr")


def test_loss_and_accuracy_of_both_splits_share_a_chart_and_come_first(run: Path) -> None:
    layout = Layout.FromString(read(run).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = [(chart.title, list(chart.multiline.tag)) for chart in layout.category[0].chart]
    assert charts == [
        ("loss", ["train/loss", "validation/loss"]), ("accuracy", ["train/accuracy", "validation/accuracy"]),
    ]  # fmt: skip
    tags = [tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag]
    assert set(tags) <= set(read(run).Tags()["scalars"])


def test_hyperparameters_are_those_that_were_chosen(run: Path, arrays: Path) -> None:
    content = read(run).PluginTagToContent("hparams")["_hparams_/session_start_info"]
    found = HParamsPluginData.FromString(content).session_start_info.hparams
    shown = {key: getattr(value, value.WhichOneof("kind")) for key, value in found.items()}
    assert shown == {
        "data.name": "arrays", "data.path": str(arrays), "data.validation": 0.2, "data.test": 0.0,
        "model.name": "mlp", "model.hidden": "8", "model.dropout": 0.2, "optimizer.lr": 0.1,
        "augmentation": "horizontal_flip", "schedule.name": "constant", "training.epochs": 2.0,
        "training.batch_size": 4.0, "training.accumulate": 2.0, "training.clip_norm": "null",
    }  # fmt: skip


def test_a_smoothed_constant_stays_what_it_is_from_the_first_point() -> None:
    rows = [{"train/loss": 0.7, "step": step} for step in range(5)]
    assert smooth(rows, ["train/loss"], 0.9) == [{"smoothed/train/loss": pytest.approx(0.7, rel=1e-12)}] * 5


def test_smoothing_is_an_exponential_average_of_the_points_that_there_are() -> None:
    values = [4.0, 1.0, None, float("inf"), 2.0]
    rows = [{"x": value} if value is not None else {} for value in values]
    first, second, *missing, last = smooth(rows, ["x"], 0.6)
    assert first["smoothed/x"] == pytest.approx(4.0) and missing == [{}, {}]
    assert second["smoothed/x"] == pytest.approx((0.6 * 0.4 * 4 + 0.4 * 1) / (1 - 0.6**2))
    assert last["smoothed/x"] == pytest.approx((0.36 * 0.4 * 4 + 0.6 * 0.4 * 1 + 0.4 * 2) / (1 - 0.6**3))


def test_the_table_has_smoothed_columns_and_events_have_none(run: Path) -> None:
    first, second = table(run)
    curves = ["train/loss", "train/accuracy", "validation/loss", "validation/accuracy"]
    assert list(first)[-4:] == [f"smoothed/{tag}" for tag in curves]
    for tag in curves:
        assert float(first[f"smoothed/{tag}"]) == pytest.approx(float(first[tag]))
        expected = (0.6 * float(first[tag]) + float(second[tag])) / 1.6
        assert float(second[f"smoothed/{tag}"]) == pytest.approx(expected)
    assert not any(tag.startswith("smoothed") for tag in [*read(run).Tags()["scalars"], *read_table(run)[0]])


def test_smoothing_may_change_when_a_run_goes_on(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "001"))
    before = (copy / "metrics.csv").read_bytes()
    arguments = ["resume", str(copy), "training.epochs=3"]
    assert CliRunner().invoke(app, [*arguments, "training.smoothing=0"]).exit_code == 0
    assert "smoothed" not in (copy / "metrics.csv").read_text() and b"smoothed" in before and len(table(copy)) == 3
