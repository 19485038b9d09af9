"""The task of the documentation, `ordinal_regression`, in every command."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from test_readme import PLUGINS
from training import table
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.config import section
from dltrain.tasks import Loss, Task

TEXT = """
data: digits
task: ordinal_regression
model: {name: mlp, hidden: [32]}
optimizer: {name: adam, lr: 0.01}
training: {epochs: 3, batch_size: 64, early_stopping: {metric: validation/mae}}
sweep: {trials: 2, epochs: 1, space: {optimizer.lr: {low: 0.003, high: 0.03, log: true}}}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file; what it adds is gone afterwards."""
    known, modules = {kind: list(kind.catalogue) for kind in (Loss, Task)}, set(sys.modules)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_order.py"
    path.write_text(PLUGINS["my_order.py"])
    yield path
    for kind, entries in known.items():
        kind.catalogue[:] = entries
    for name in set(sys.modules) - modules:
        if name.startswith("dltrain_plugin_"):
            del sys.modules[name]
    section._index.cache_clear()


def test_the_task_of_the_documentation_works_in_every_command(plugin: Path, tmp_path: Path) -> None:
    def invoke(command: str, *arguments: object) -> str:
        options = [] if command == "list" else ["--device", "cpu"]
        result = CliRunner().invoke(app, [command, *map(str, arguments), "--plugin", str(plugin), *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert len(PLUGINS["my_order.py"].splitlines()) < 60
    (tmp_path / "e.yaml").write_text(TEXT)
    plan = json.loads(invoke("plan", "e.yaml", "--json"))
    assert (plan["task"], plan["loss"]) == ("ordinal_regression", "earth_mover")
    run = Path(invoke("fit", "e.yaml", "training.epochs=2").strip())
    invoke("resume", run, "training.epochs=3")
    rows = [float(row["validation/mae"]) for row in table(run)]
    assert len(rows) == 3 and rows[-1] < rows[0]
    assert json.loads((run / "result.json").read_text())["best_metric"] == "validation/mae"

    found = json.loads(invoke("eval", run, "--json"))
    steps = [abs(i - j) * n for i, row in enumerate(found["confusion_matrix"]) for j, n in enumerate(row)]
    assert found["mae"] == pytest.approx(sum(steps) / found["examples"]) and 0 < found["mae"] < 2
    Image.new("L", (8, 8), 128).save(tmp_path / "grey.png")
    (answer,) = csv.DictReader(invoke("predict", run, "grey.png").splitlines())
    assert answer["class"] in "0123456789"

    folder = Path(invoke("sweep", "e.yaml").strip().splitlines()[-1]).parent
    ranking = list(csv.DictReader((folder / "ranking.csv").read_text().splitlines()))
    values = [float(row["validation/mae"]) for row in ranking]
    assert len(values) == 2 and values == sorted(values), "less is best"
    assert "ordinal_regression" in invoke("list", "tasks")
