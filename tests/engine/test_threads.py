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

from dltrain import Experiment, Run, build
from dltrain.cli import app
from dltrain.engine import threads
from dltrain.engine.decisions import Decision, decide
from dltrain.engine.torch_threads import TORCH_THREADS
from dltrain.experiment.training import Training
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


def test_a_small_step_takes_one_thread_and_the_run_says_why() -> None:
    assert invoke("fit", "e.yaml").exit_code == 0
    reason = "a step of 1.7e+04 multiply-adds gains little from 2, which lose much beside busy programs"
    assert decided("runs/e/001") == {"value": 1, "reason": f"{reason}; torch's default from 5e+07 on"}
    assert yaml.safe_load(Path("runs/e/001/experiment.yaml").read_text())["training"]["threads"] == "auto"


@pytest.mark.parametrize(("work", "device", "expected"), [(4e7, "cpu", 1), (6e7, "cpu", 2), (4e7, "meta", 2)])
def test_the_work_of_a_step_decides(work: float, device: str, expected: int) -> None:
    """By a batch of 16, cut into two parts; another device does not compute with these threads."""
    training = Training(epochs=1, batch_size=16, accumulate=2)
    found = decide(training, torch.device(device), torch.nn.Linear(1, 1), int(work / 8), 1.0)
    assert found["threads"].value == expected
    few = decide(training.model_copy(update={"threads": 3}), torch.device(device), torch.nn.Linear(1, 1), 1, 1.0)
    assert few["threads"] == Decision(3, "set in the experiment")


def test_what_a_training_has_set_is_not_taken_for_torchs_own() -> None:
    assert invoke("fit", "e.yaml", "training.threads=1").exit_code == 0
    assert torch.get_num_threads() == 1 and TORCH_THREADS.default == 2
    assert invoke("fit", "e.yaml", "training.threads=probe").exit_code == 0
    assert "with 2" in decided("runs/e/002")["reason"] and TORCH_THREADS.default == 2
    torch.set_num_threads(3)
    assert TORCH_THREADS.default == 3  # the program's word


def test_a_run_that_goes_on_keeps_its_number() -> None:
    experiment = Experiment.load("e.yaml")
    begun = build(experiment.override("training.threads", 2), "cpu").state_dict()
    begun["about"]["decisions"]["threads"] = {"value": 2, "reason": "torch's default on this machine"}
    again = build(experiment, "cpu", begun)
    assert again.about["decisions"]["threads"]["value"] == 2 == torch.get_num_threads()
