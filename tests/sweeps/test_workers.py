"""Several trials at once: the same results as one after another, and none lost, whoever is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from forking import Zygote, until
from sweeping import ranking, sweep, write_experiment

KEPT = ("trial", "state", "validation/accuracy", "validation/loss", "optimizer.lr", "model.dropout", "epochs", "reason")


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def outcome(folder: Path) -> list[dict[str, str]]:
    return [{key: row[key] for key in KEPT} for row in ranking(folder)]


def workers_of(pid: int) -> list[int]:
    """The processes that lead a session of their own below a process: its workers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents = {int(entry.name): int(fields[1])}
                if int(fields[3]) == int(entry.name) and _descends(parents[int(entry.name)], pid):
                    found.append(int(entry.name))
            except (OSError, IndexError, ValueError):
                continue
    return found


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            return False
    return False


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What one worker makes of the sweep of six trials."""
    folder = tmp_path_factory.mktemp("alone")
    assert sweep(write_experiment(folder), "sweep.trials=6", "sweep.epochs=4", "--runs", folder).exit_code == 0
    return outcome(folder / "tiny/sweep-001")


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")


def test_workers_may_be_killed_and_so_may_the_coordinator(
    zygote: Zygote, yaml: Path, tmp_path: Path, alone: list[dict[str, str]]
) -> None:
    """Two workers, one of which is killed again and again; then the coordinator is; then the search is carried on."""
    folder, chance = tmp_path / "tiny/sweep-001", random.Random(0)
    command = ["sweep", yaml, "sweep.trials=6", "sweep.epochs=4", "--jobs", "2", "--runs", tmp_path]
    child = zygote.start(*command, output=tmp_path / "output")
    until((folder / "trials/001/metrics.csv").exists, 120, lambda: child.text)
    for _ in range(3):
        time.sleep(0.1)
        if workers := workers_of(child.pid):
            os.kill(chance.choice(workers), signal.SIGKILL)
    child.kill()
    assert child.wait() in (-signal.SIGKILL, 0)
    assert zygote.run("sweep", folder, "--jobs", "2", output=tmp_path / "again") == 0
    assert outcome(folder) == alone


def test_ctrl_c_parks_what_trains(zygote: Zygote, yaml: Path, tmp_path: Path, alone: list[dict[str, str]]) -> None:
    folder = tmp_path / "tiny/sweep-001"
    command = ["sweep", yaml, "sweep.trials=6", "sweep.epochs=4", "--jobs", "2", "--runs", tmp_path]
    child = zygote.start(*command, output=tmp_path / "output")
    until((folder / "trials/002").exists, 120, lambda: child.text)
    child.kill(signal.SIGINT)
    assert child.wait() == 130, child.text
    assert f"interrupted; to go on: dltrain sweep {folder}" in child.text and "Traceback" not in child.text
    assert not workers_of(child.pid)
    assert sweep(folder).exit_code == 0  # one worker goes on where two stopped
    assert outcome(folder) == alone


@pytest.mark.slow
def test_actors_of_a_cluster_may_be_killed(
    zygote: Zygote, yaml: Path, tmp_path: Path, alone: list[dict[str, str]]
) -> None:
    """On Ray's cluster of this machine alone: two actors, which are killed again and again."""
    pytest.importorskip("ray", reason="needs the extra `cluster`")
    folder = tmp_path / "tiny/sweep-001"
    command = ["sweep", yaml, "sweep.trials=6", "sweep.epochs=4", "--cluster", "auto", "--jobs", "2"]
    child = zygote.start(*command, "--runs", tmp_path, output=tmp_path / "output")
    until((folder / "trials/001/experiment.yaml").exists, 300, lambda: child.text)
    killed = 0
    while killed < 3 and len(list((folder / "trials").glob("*/result.json"))) < 6:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and b"ray::Remote" in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed += 1
                    break
        time.sleep(2)
    assert child.wait(400) == 0, child.text
    assert killed and outcome(folder) == alone


def test_a_cluster_without_its_library_names_the_extra(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = sweep(yaml, "--cluster", "auto", "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and "pip install 'dltrain[cluster]'" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_cluster_that_is_not_there(yaml: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `cluster`")
    result = sweep(yaml, "--cluster", "ray://localhost:1", "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and "--cluster ray://localhost:1: " in result.stderr
    assert not (tmp_path / "runs").exists()
