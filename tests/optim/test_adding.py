"""An optimizer is one file in the folder of optimizers, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from dltrain import ConfigError, Experiment
from dltrain.config import section
from dltrain.config.folders import import_modules
from dltrain.optim import Optimizer, optimizers
from dltrain.optim.impl.groups import parameter_groups

SIGN_DESCENT = '''"""Descent by the sign of the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


class SignDescent(Optimizer):
    """Every weight moves by lr against the sign of its gradient."""

    name: Literal["sign_descent"] = "sign_descent"
    lr: float = 0.001
    """Length of each step."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Rprop

        return ready(Rprop(groups, lr=self.lr, etas=(0.5, 1.2), step_sizes=(self.lr, self.lr)))

    def first_step(self, w: float, g: float) -> float:
        return w - self.lr * ((g > 0) - (g < 0))
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second folder of optimizers; what is added is gone afterwards."""
    monkeypatch.setattr(optimizers, "__path__", [*optimizers.__path__, str(tmp_path)])
    known = list(Optimizer.catalogue)
    yield tmp_path
    Optimizer.catalogue[:] = known
    sys.modules.pop("dltrain.optim.optimizers.sign_descent", None)
    section._index.cache_clear()


def test_an_optimizer_is_one_file_of_at_most_30_lines(folder: Path) -> None:
    before = Optimizer.all_names()
    assert len(SIGN_DESCENT.splitlines()) <= 30
    (folder / "sign_descent.py").write_text(SIGN_DESCENT)
    (folder / "impl").mkdir()
    (folder / "impl" / "__init__.py").write_text("raise AssertionError('the torch code is left alone')")
    import_modules(optimizers.__name__, optimizers.__path__, optimizers.SHOWN_FIRST)
    assert Optimizer.all_names() == [*before, "sign_descent"]

    text = "data: digits\nmodel: mlp\noptimizer: {name: sign_descent, lr: 0.25}\n"
    made = Experiment.parse(text).optimizer
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, -1.0]])
    optimizer = made.build(parameter_groups(model, made), torch.device("cpu"))
    model(torch.tensor([[3.0, -4.0]])).sum().backward()
    optimizer.step()
    assert model.weight.tolist() == [[made.first_step(1.0, 3.0), made.first_step(-1.0, -4.0)]] == [[0.75, -0.75]]
    with pytest.raises(ConfigError, match="unknown option `momentum` for optimizer `sign_descent`"):
        Experiment.parse(text.replace("lr: 0.25", "momentum: 0.25"))
