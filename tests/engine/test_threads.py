"""`training.threads`: set, or chosen by timing steps; the run says how many it took, and repeats with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training import assert_same_state
from typer.testing import CliRunner, Result

from dltrain import Run
from dltrain.cli import app
from dltrain.engine import threads
from dltrain.runs import checkpoints

TEXT = """
data: {name: synthetic, examples: 60, classes: 3, shape: [1, 8, 8]}
model: {name: mlp, hidden: [16]}
training: {epochs: 2, batch_size: 16}
"""


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine on which torch takes two threads, and a user who has not said how many."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(threads, "SECONDS", 0.01)
    Path("e.yaml").write_text(TEXT)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def decided(run: str) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(Path(run, "environment.json").read_text())["decisions"]["threads"]
    return entry


def test_a_probe_writes_down_what_it_chose_and_changes_nothing_else() -> None:
    assert invoke("fit", "e.yaml", "training.threads=probe").exit_code == 0
    chosen = decided("runs/e/001")
    assert chosen["value"] in (1, 2) and "one thread" in chosen["reason"] and "with 2" in chosen["reason"]
    assert yaml.safe_load(Path("runs/e/001/experiment.yaml").read_text())["training"]["threads"] == chosen["value"]
    torch.set_num_threads(2)
    assert invoke("fit", "e.yaml", f"training.threads={chosen['value']}").exit_code == 0
    assert decided("runs/e/002") == {"value": chosen["value"], "reason": "set in the experiment"}
    one, other = (checkpoints.load(Run(Path("runs/e", name)).last) for name in ("001", "002"))
    assert_same_state(one["model"], other["model"])


@pytest.mark.parametrize(("alone", "faster"), [(0.5, 1), (0.99, 2), (2.0, 2)])
def test_one_thread_is_taken_where_it_is_clearly_faster(
    alone: float, faster: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        """Each reading is later by what a step takes with as many threads as there are now."""

        now = 0.0

        def perf_counter(self) -> float:
            self.now += alone if torch.get_num_threads() == 1 else 1.0
            return self.now

    monkeypatch.setattr(threads, "time", Clock())
    assert invoke("fit", "e.yaml", "training.threads=probe").exit_code == 0
    assert decided("runs/e/001")["value"] == faster


def test_the_environment_stands_above_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    for asked in ("probe", "1"):
        assert invoke("fit", "e.yaml", f"training.threads={asked}").exit_code == 0
    for run in ("001", "002"):
        assert decided(f"runs/e/{run}") == {"value": 2, "reason": "OMP_NUM_THREADS in the environment"}


def test_no_number_of_threads_is_a_mistake() -> None:
    result = invoke("check", "e.yaml", "training.threads=0")
    assert result.exit_code == 2 and "training.threads" in result.stderr
