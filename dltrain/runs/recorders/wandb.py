"""Weights & Biases: offline first, in the run directory; `wandb sync` uploads it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dltrain.runs.recorders.base import About, Recorder, Recording, Row, pixels, shown
from dltrain.runs.reports import Histogram

if TYPE_CHECKING:
    from torch import Tensor


class WandB(Recorder):
    """Weights & Biases. Offline, the record lies in RUN/wandb until `wandb sync RUN/wandb/offline-*` uploads it."""

    source = "https://docs.wandb.ai"
    library, install = "wandb", "dltrain[wandb]"
    name: Literal["wandb"] = "wandb"
    project: str = "dltrain"
    """The project that the run belongs to."""
    entity: str | None = None
    """The user or team of the project; null: the user that is logged in."""
    mode: Literal["offline", "online"] = "offline"
    """Whether the record is sent while it grows, which needs `wandb login`."""

    def build(self) -> Recording:
        return WandBRun(self)


class WandBRun(Recording):
    """A run of W&B, which drops what it is told again of steps that it has already."""

    def __init__(self, options: WandB) -> None:
        self._options = options

    def start(self, about: About, history: Sequence[Row], step: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its faults are not told to its makers
        import wandb

        options, online = self._options, self._options.mode == "online"
        self._goes_on = step > 0 and not online and any(about.path.glob(f"wandb/offline-run-*-{about.identity}"))
        self._run = wandb.init(
            project=options.project, entity=options.entity, mode=options.mode, dir=str(about.path), id=about.identity,
            name=about.title, group=about.experiment, resume="allow" if online else None, reinit="create_new",
            config={key.replace(".", "/"): value for key, value in about.hyperparameters.items()},
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        for row in () if self._goes_on else history:
            self.epoch(row)

    def step(self, row: Row) -> None:
        self._run.log(shown(row), step=int(row["step"]))

    def epoch(self, row: Row) -> None:
        self._run.log({**shown(row), "epoch": int(row["epoch"])}, step=int(row["step"]))

    def images(self, name: str, grid: Tensor, step: int = 0) -> None:
        import wandb

        if step:
            self._run.log({name: wandb.Image(pixels(grid))}, step=step)
        elif not self._goes_on and self._run.summary.get(name) is None:
            self._run.log({name: wandb.Image(pixels(grid))})

    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:
        import numpy as np
        import wandb

        pairs = {tag: (np.array(each.counts), np.array(each.edges)) for tag, each in found.items()}
        self._run.log({tag: wandb.Histogram(np_histogram=pair) for tag, pair in pairs.items()}, step=step)

    def figure(self, name: str, figure: Path) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(figure))})

    def close(self, state: str) -> None:
        self._run.finish(exit_code=0 if state == "finished" else 1)
