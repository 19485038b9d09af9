"""The journal of a sweep: damaged lines are cut out and said, forged records are made again, and never a traceback."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from rationing import some
from training import write_arrays
from typer.testing import CliRunner, Result

from dltrain.cli import app

TEXT = """
name: tiny
data: {{name: arrays, path: {data}, validation: 0.2}}
model: {{name: mlp, hidden: [4]}}
training: {{epochs: 1, batch_size: 40}}
sweep: {{trials: 3, space: {{optimizer.lr: {{low: 0.01, high: 0.1}}}}}}
"""


def go_on(sweep: Path) -> Result:
    result = CliRunner().invoke(app, ["sweep", str(sweep), "--device", "cpu"])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of three trials."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.yaml").write_text(TEXT.format(data=write_arrays(folder / "a.npz")))
    command = ["sweep", str(folder / "tiny.yaml"), "--runs", str(folder / "runs"), "--device", "cpu"]
    assert CliRunner().invoke(app, command).exit_code == 0
    return folder / "runs/tiny/sweep-001"


@pytest.fixture
def sweep(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "sweep"))


def ranking(sweep: Path) -> list[list[str]]:
    """Without the seconds."""
    return [line.split(",")[:-3] for line in (sweep / "ranking.csv").read_text().splitlines()]


@pytest.mark.parametrize("line", some(range(20), 5))
def test_a_damaged_line_is_cut_out_and_the_sweep_ends_as_before(line: int, sweep: Path) -> None:
    """Whichever it is: that of the study, of what it began with, of a new trial, of a setting or of an end."""
    journal, expected = sweep / "journal.log", ranking(sweep)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert line < len(lines)
    lines[line] = lines[line][:9] + b"\x00\xff" + lines[line][11:]
    journal.write_bytes(b"".join(lines))
    result = go_on(sweep)
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert f"line {line + 1} is damaged and cut out" in said
    assert ranking(sweep) == expected
    assert (sweep / "journal.log.damaged").read_bytes() == b"".join(lines)
    again = go_on(sweep)
    assert again.exit_code == 0 and "cut out" not in again.stderr and "3 of them made" in again.stderr


def test_several_damaged_lines(sweep: Path) -> None:
    """All that told of the second trial, and the end of the third."""
    journal, expected = sweep / "journal.log", ranking(sweep)
    lines = journal.read_bytes().splitlines(keepends=True)
    created = [number for number, line in enumerate(lines) if b'"op_code":4' in line]
    damaged = [*range(created[1], created[2]), max(number for number, line in enumerate(lines) if b"run 0" in line)]
    for number in damaged:
        lines[number] = b"zeros\n"
    journal.write_bytes(b"".join(lines))
    result = go_on(sweep)
    first = ", ".join(str(number + 1) for number in damaged[:5])
    assert result.exit_code == 0
    assert f"lines {first} and {len(damaged) - 5} more are damaged" in " ".join(result.stderr.split())
    assert "1 of them made" in result.stderr and ranking(sweep) == expected


SOUND = {"state": "finished", "epochs": 1, "metrics": {"validation/accuracy": 0.5}, "reason": None, "seconds": 1.0}
FORGED: list[Any] = [
    {**SOUND, "metrics": {"validation/accuracy": "high"}}, {**SOUND, "metrics": {}}, {**SOUND, "reason": 3}, [], 7,
    {**SOUND, "metrics": None}, {**SOUND, "seconds": -1.0}, {**SOUND, "metrics": {"lr": 0.1}}, {**SOUND, "state": "x"},
    {**SOUND, "metrics": {"validation/accuracy": float("nan")}}, {**SOUND, "epochs": 0.5}, {**SOUND, "more": 1},
]  # fmt: skip


@pytest.mark.parametrize("record", some(FORGED, 3))
def test_a_record_that_is_none_is_made_again(record: Any, sweep: Path) -> None:
    journal, expected = sweep / "journal.log", ranking(sweep)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    changed = next(line for line in lines if line.get("trial_id") == 1 and "run 0" in line.get("user_attr", ()))
    changed["user_attr"]["run 0"] = json.dumps(record)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = go_on(sweep)
    assert result.exit_code == 0 and "2 of them made" in result.stderr
    assert ranking(sweep) == expected


@pytest.mark.parametrize("seed", some(range(6), 3))
def test_no_forged_journal_gives_a_traceback(seed: int, sweep: Path) -> None:
    draw, journal = random.Random(seed), sweep / "journal.log"
    sound = [json.loads(line) for line in journal.read_text().splitlines()]
    junk = [None, True, -1, 10**25, 1e400, "", "x" * 10**5, [], {}, [[[]]], {"index": "x"}, {"values": "[]"}, "{}"]
    for _ in range(5):
        lines = json.loads(json.dumps(sound))
        for line in draw.sample(lines, draw.randrange(1, 4)):
            line[draw.choice(list(line))] = draw.choice(junk)
        if draw.random() < 0.3:
            draw.shuffle(lines)
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = go_on(sweep)
        assert result.exit_code in (0, 1, 2) and len(result.stderr) < 6000
