"""`dltrain runs`: what the directories of runs and sweeps tell, whole, half written or damaged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from evaluating import invoke
from filelock import FileLock
from sweeping import ranking, sweep, write_experiment

EARLIER = Path(__file__).parent.parent / "runs/before_rooms"


def make_run(path: Path, began: str = "2026-01-02T03:04:05+0000", **changes: Any) -> Path:
    """A run with the files of an interrupted one, and changes in its result."""
    path.mkdir(parents=True)
    for name in ("experiment.yaml", "result.json"):
        shutil.copy(EARLIER / name, path / name)
    told = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps({**told, **changes}))
    (path / "environment.json").write_text(json.dumps({"started": began}))
    return path


def listed(*arguments: Any) -> list[dict[str, Any]]:
    done = invoke("runs", *arguments, "--json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    accuracy = "validation/accuracy"
    make_run(runs / "a/001", "2026-03-01T00:00:00+0000", state="finished", best={accuracy: 0.75}, seconds=3723.4)
    make_run(runs / "a/002", "2026-02-01T00:00:00+0000", state="failed", best={accuracy: 0.9}, best_epoch=7)
    make_run(
        runs / "b/001", "2026-01-01T00:00:00+0000", best_metric="validation/rmse", best={"validation/rmse": 12.3456}
    )
    return runs


def test_every_run_is_told(folder: Path) -> None:
    found = listed(folder)
    assert [Path(run["path"]).relative_to(folder).as_posix() for run in found] == ["b/001", "a/002", "a/001"]
    assert found[2] == {
        "path": str(folder / "a/001"), "state": "finished", "metric": "validation/accuracy", "best": 0.75, "epoch": 3,
        "began": "2026-03-01T00:00:00+0000", "seconds": 3723.4, "trials": None,
    }  # fmt: skip
    lines = invoke("runs", folder).stdout.splitlines()
    assert lines[0].split() == ["run", "state", "best", "epoch", "began", "took"] and len(lines) == 4
    assert re.search(r"a/001 +finished  validation/accuracy 0\.7500 +3  2026-03-01 00:00  1:02:03$", lines[3])
    assert "validation/rmse 12.346" in lines[1] and "interrupted" in lines[1]


def test_the_order_is_chosen(folder: Path) -> None:
    def order(by: str) -> list[str]:
        return [Path(run["path"]).relative_to(folder).as_posix() for run in listed(folder, "--sort", by)]

    assert order("best") == ["a/002", "a/001", "b/001"], "more is better of an accuracy"
    assert order("name") == ["a/001", "a/002", "b/001"]
    assert order("seconds")[-1] == "a/001"
    make_run(folder / "b/002", best_metric="validation/rmse", best={"validation/rmse": 3.0})
    make_run(folder / "b/003", best_metric="validation/rmse", best={})
    assert order("best")[2:] == ["b/002", "b/001", "b/003"], "less is better of an error, and the unknown is last"


def test_a_run_that_nobody_makes_has_stopped(folder: Path) -> None:
    run = make_run(folder / "c/001", state="running")
    assert next(line for line in listed(folder) if "/c/" in line["path"])["state"] == "stopped"
    with FileLock(run / ".lock"):
        assert next(line for line in listed(folder) if "/c/" in line["path"])["state"] == "running"
    assert next(line for line in listed(folder) if "/c/" in line["path"])["state"] == "stopped"


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"state": 3, "best": 4, "best_metric": [1], "seconds": "long"}'])
def test_damaged_files_hide_no_run(content: str, folder: Path) -> None:
    for name in ("result.json", "environment.json"):
        (folder / "a/001" / name).write_text(content)
    (folder / "a/002/result.json").unlink()
    found = {Path(run["path"]).relative_to(folder).as_posix(): run for run in listed(folder)}
    assert found["a/001"] == {
        "path": str(folder / "a/001"), "state": "unknown", "metric": None, "best": None, "epoch": None, "began": None,
        "seconds": None, "trials": None,
    }  # fmt: skip
    assert found["a/002"]["state"] == "unknown" and len(found) == 3
    assert invoke("runs", folder).exit_code == 0


def test_a_sweep_is_one_line(tmp_path: Path) -> None:
    done = sweep(write_experiment(tmp_path), "--runs", tmp_path / "runs", "sweep.trials=3", "--device", "cpu")
    assert done.exit_code == 0, done.output
    made = make_run(tmp_path / "runs/tiny/001")
    [one, other] = listed(tmp_path / "runs", "--sort", "name")
    assert one["path"] == str(made) and other["path"] == str(tmp_path / "runs/tiny/sweep-001")
    best = ranking(tmp_path / "runs/tiny/sweep-001")[0]
    assert other["metric"] == "validation/accuracy" and other["best"] == float(best["validation/accuracy"])
    assert other["state"] == "finished" and other["trials"] == {"finished": 3} and other["seconds"] > 0
    assert "sweep: 3 finished" in invoke("runs", tmp_path / "runs").stdout
    (tmp_path / "runs/tiny/sweep-001/ranking.csv").write_bytes(b"\xff")
    assert listed(tmp_path / "runs", "--sort", "name")[1]["best"] is None


def test_where_there_is_none(tmp_path: Path) -> None:
    done = invoke("runs", tmp_path / "nothing")
    assert done.exit_code == 2 and "there is no folder" in done.stderr
    done = invoke("runs", tmp_path)
    assert done.exit_code == 2 and "there is no run in" in done.stderr
