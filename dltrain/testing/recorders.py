"""The contract of recorders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dltrain.runs.recorders.base import About, Recorder, Recording
from dltrain.runs.reports import Histogram
from dltrain.testing.contract import Contract

SPREAD = Histogram([-1.0, 0.0, 1.0, 2.0], [3, 4, 0], -0.5, 1.75)


def rows_of(epochs: int, steps: int = 4) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The rows of epochs of `steps` steps, and one point in the middle of each."""
    ends = range(steps, epochs * steps + 1, steps)
    rows = [
        {"epoch": step // steps, "step": step, "train/loss": 1 / step, "validation/loss": float("nan"), "lr": 0.1}
        for step in ends
    ]
    return rows, [{"step": step - steps // 2, "train/loss": 2 / step, "lr": 0.1} for step in ends]


class RecorderContract(Contract):
    """A recorder takes what a run tells it, goes on after a resume, and writes below the runs folder alone."""

    kind = Recorder

    @pytest.fixture
    def about(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> About:
        """A run in an empty folder, which is not the working directory."""
        for folder in ("elsewhere", "runs/tiny/001"):
            (tmp_path / folder).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        values: dict[str, str | float | bool] = {"model.name": "mlp", "lr": 0.1, "deterministic": True, "cache": "null"}
        return About(tmp_path / "runs" / "tiny" / "001", "tiny", values, ["loss", "accuracy"], {"started": "now"})

    def opened(self, choice: Any, about: About, history: Sequence[dict[str, float]]) -> Recording:
        """A recording that has begun."""
        entry: Recorder = self.parse(choice)
        if not entry.is_installed():
            pytest.skip(f"{entry.library} is not installed")
        recording = entry.build()
        recording.start(about, history, int(history[-1]["step"]) if history else 0)
        return recording

    @pytest.mark.filterwarnings("ignore")  # of its library, which is not ours to mend
    def test_it_takes_what_a_run_tells_and_goes_on(self, choice: Any, about: About, tmp_path: Path) -> None:
        rows, points = rows_of(3)
        Image.new("RGB", (8, 6), "red").save(tmp_path / "figure.png")
        for begun, state in (([], "interrupted"), (rows[:1], "failed"), (rows[:2], "finished")):
            recording = self.opened(choice, about, begun)
            recording.images("train/images", torch.rand(3, 20, 30))
            for point, row in zip(points[len(begun) :], rows[len(begun) :], strict=True):
                recording.step(point)
                recording.histograms({"watch/weights/0": SPREAD}, int(point["step"]))
                recording.epoch(row)
            recording.figure("figure", tmp_path / "figure.png")
            recording.close(state)
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "runs", "figure.png"}

    @pytest.mark.filterwarnings("ignore")
    def test_it_can_begin_late(self, choice: Any, about: About) -> None:
        """A run can get one more recorder when it is continued."""
        rows, _ = rows_of(3)
        recording = self.opened(choice, about, rows[:2])
        recording.epoch(rows[2])
        recording.close("finished")
