"""`doctor`: what it says of this machine, and of one that lacks things."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dltrain import Experiment, build
from dltrain.cli import app
from dltrain.commands import doctor
from dltrain.commands.doctor import examined, extras, told


def test_it_tells_what_a_training_decides() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    small = Experiment.parse(doctor.EXAMPLES["a small training"])
    trainer = build(small, "cpu")
    decided = trainer.about["decisions"]
    trainer.close()
    told_of = found["trainings"]["a small training"]
    assert told_of == {key: decided[key] for key in doctor.SHOWN} and len(told_of) == 7
    assert found["devices"][0]["device"] == "cpu" and found["versions"]["torch"] == torch.__version__
    assert found["machine"]["usable_cores"] <= found["machine"]["cores"]
    assert found["machine"]["free_disk_bytes"] > 0 < found["machine"]["free_memory_bytes"]


def test_it_says_so_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "free_memory", lambda device: 10**8)
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e18)
    monkeypatch.setattr(doctor, "crowded", lambda threads: "other programs compute")
    text = told(examined("cpu"))
    for part in ("a small training would have", "a large one would have", "precision", "free    100.0 MB of memory"):
        assert part in text
    warnings = [line for line in text.splitlines() if line.startswith("warning: ")]
    assert warnings[0] == "warning: other programs compute" and len(warnings) == 4
    assert "100.0 MB of memory are free" in warnings[1] and "of disk are free" in warnings[2]
    assert warnings[3] == "warning: there is no C++ compiler: `training.compile` stays off"


def test_extras_with_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = ["numpy>=1", 'wandb>=0.19; extra == "wandb"', 'pytest; extra == "test"', 'polars>=9; extra == "table"',
              'numpy>=1; extra == "two"', 'absent; extra == "two"', "scipy>=1; extra == 'good'"]  # fmt: skip
    here = {"numpy": "2.0", "polars": "1.0", "scipy": "1.9"}

    def version(name: str) -> str:
        if name not in here:
            raise PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(doctor, "requires", lambda package: stated)
    monkeypatch.setattr(doctor, "version", version)
    found = {each["extra"]: each for each in extras("thing")}
    assert list(found) == ["good", "table", "two", "wandb"]
    assert {name: each["installed"] for name, each in found.items()} == {
        "good": True, "table": False, "two": False, "wandb": False,
    }  # fmt: skip
    assert found["two"]["packages"] == {"numpy": "2.0", "absent": None}
    assert found["wandb"]["install"] == "pip install 'thing[wandb]'"
    values: dict[str, Any] = {**examined("cpu"), "extras": list(found.values())}
    text = told(values)
    assert "extra     two: numpy 2.0, absent missing; pip install 'thing[two]'" in text
    assert "extra     good: scipy 1.9\n" in text


def test_what_is_not_installed_has_no_extras() -> None:
    assert extras("no-such-package-anywhere") == []


def test_a_device_that_is_not_there() -> None:
    assert CliRunner().invoke(app, ["doctor", "--device", "cuda:99"]).exit_code == 2
