"""`verify-resume`: the verdict of trainings that are killed, and what would make it a bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import Zygote
from training import arrays_experiment, train
from typer.testing import CliRunner

from dltrain import Experiment
from dltrain.cli import app
from dltrain.commands.verify_resume import Verdict, compared, differences, shortened, told

FORGETFUL = '''
"""An activation whose state no checkpoint holds."""

from typing import Literal

from dltrain.layers import Activation


class Forgetful(Activation):
    """ReLU that grows with each call."""

    fact = {1.0: 1.0}
    name: Literal["forgetful"] = "forgetful"

    def build(self, channels):
        from torch import nn

        class Module(nn.Module):
            calls = 0

            def forward(self, x):
                Module.calls += 1
                return x.relu() * (1 + 0.01 * Module.calls)

        return Module()
'''


FORKS = (
    "import forking, types, dltrain.commands.verify_resume as command\n"
    "command.subprocess = types.SimpleNamespace(run=forking.run_python)"
)
"""Setup of a command whose trainings are forks of it."""


def verified(*arguments: object) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["verify-resume", *map(str, arguments), "--json", "--device", "cpu"])
    return done.exit_code, json.loads(done.stdout)


def write(folder: Path, arrays: Path, model: str) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(f"data: {{name: arrays, path: {arrays}}}\nmodel: {model}\ntraining: {{batch_size: 20}}\n")
    return file


@pytest.mark.slow  # three processes that import torch
def test_a_training_that_is_killed_gives_the_same_bits(tmp_path: Path, arrays: Path) -> None:
    file = write(tmp_path, arrays, "{name: convnet, widths: [4], dropout: 0.3}")
    code, found = verified(file, "--steps", 9, "--kills", 1)
    assert code == 0 and found["same"] and found["differences"] == []
    assert found["steps"] == 9 and found["kills"] == [4] and found["rows"] == 3 and found["tensors"] > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_one_that_forgets_does_not(tmp_path: Path, arrays: Path, zygote: Zygote) -> None:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    file = write(tmp_path, arrays, "{name: mlp, hidden: [4], activation: forgetful}")
    done = zygote.capture(
        "verify-resume", file, "--steps", 9, "--kills", 1, "--plugin", tmp_path / "forgetful.py", "--json", setup=FORKS
    )
    found = json.loads(done.stdout)
    assert done.code == 1 and not found["same"]
    assert any(text.startswith("last.pt.model.") and "apart" in text for text in found["differences"])
    assert any(text.startswith("metrics.csv: row 3") for text in found["differences"])


def test_runs_are_compared_as_a_whole(arrays: Path, tmp_path: Path) -> None:
    runs = [train(arrays, tmp_path / name, training__epochs=2)[1].path for name in ("a", "b")]
    same = compared(*runs, 10, [3])
    assert same.same and same.rows == 2
    assert "the same, bit for bit" in told(same) and "killed after 3" in told(same)
    other = train(arrays, tmp_path / "c", training__epochs=2, seed=1)[1].path
    verdict = compared(runs[0], other, 10, [3, 6])
    assert not verdict.same and f"DIFFERENT in {len(verdict.differences)} places" in told(verdict)
    text = (other / "metrics.csv").read_text().splitlines()
    (other / "metrics.csv").write_text("\n".join(text[:-1]))
    assert "metrics.csv: 2 rows and 1" in compared(runs[0], other, 10, []).differences


def test_what_counts_as_different() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": [1, float("nan")], "seconds/data": 1.0, "c": {"d": 0.1}}
    assert list(differences(one, {**one, "seconds/data": 2.0}, "s")) == []
    assert list(differences(one, {**one, "a": torch.tensor([1.0, 2.5])}, "s")) == ["s.a: up to 0.5 apart"]
    assert list(differences(one, {**one, "a": torch.tensor([1.0])}, "s")) == [
        "s.a: (2,) torch.float32 and (1,) torch.float32"
    ]
    assert list(differences(one, {**one, "c": {"d": 0.1 + 2e-17}}, "s")) == ["s.c.d: 0.1 and 0.10000000000000002"]
    assert list(differences(one, {"a": one["a"], "b": [1, 2.0]}, "s")) == [
        "s.b.1: nan and 2.0", "s.c: only in one",
    ]  # fmt: skip
    many = Verdict(1, [1], 1, 1, [f"place {number}" for number in range(9)])
    assert "  and 4 more" in told(many) and not many.same


def test_the_copy_is_short_and_shows_nothing(arrays: Path) -> None:
    long = arrays_experiment(arrays, training__epochs=300, training__threads="probe", recorders=["tensorboard"])
    short = shortened(long, 24)
    assert (short.training.epochs, short.training.limit_batches) == (3, 8) and short.recorders == []
    assert short.training.threads == "auto" and short.training.average is not None
    timed = Experiment.parse("data: digits\nmodel: mlp\ntraining: {time: 2h, limit_batches: 3}")
    assert shortened(timed, 60).training.limit_batches == 3 and shortened(timed, 60).training.time is None


def test_a_training_that_fails_by_itself_is_no_verdict(tmp_path: Path, arrays: Path, zygote: Zygote) -> None:
    file = write(tmp_path, arrays, "mlp")
    done = zygote.capture("verify-resume", file, "optimizer.lr=1e30", "training.clip_norm=null", setup=FORKS)
    assert done.code == 2 and "the training failed by itself (exit code 1)" in done.stderr
    assert "not a number" in done.stderr
