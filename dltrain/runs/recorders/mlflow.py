"""MLflow: in a database beside the runs, or on a tracking server."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dltrain.runs.recorders.base import About, Recorder, Recording, Row, pixels, shown

if TYPE_CHECKING:
    from torch import Tensor

STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}


class MLflow(Recorder):
    """MLflow, by default in the file mlflow.db of the runs folder: `mlflow ui --backend-store-uri
    sqlite:///runs/mlflow.db` shows it."""

    source = "https://mlflow.org/docs/latest/ml/tracking"
    library, install = "mlflow", "dltrain[mlflow]"
    name: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """A tracking server, such as `http://localhost:5000`; null: the database in the runs folder."""
    experiment: str | None = None
    """MLflow's experiment; null: the name of dltrain's."""

    def build(self) -> Recording:
        return MLflowRun(self)


class MLflowRun(Recording):
    """A run of MLflow, found again by its tag. What it has of a step is not written twice."""

    def __init__(self, options: MLflow) -> None:
        self._options = options

    def start(self, about: About, history: Sequence[Row], step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # its use is not told to its makers
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        folder, uri = about.path.absolute().parent.parent, self._options.uri
        self._client = client = MlflowClient(uri or f"sqlite:///{(folder / 'mlflow.db').as_posix()}")
        name, artifacts = self._options.experiment or about.experiment, None if uri else (folder / "mlflow").as_uri()
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name, artifacts)
        runs = client.search_runs([experiment], f"tags.dltrain = '{about.identity}'")
        tags = {"dltrain": about.identity}
        run = runs[0] if runs else client.create_run(experiment, run_name=about.title, tags=tags)
        self._id = run.info.run_id
        client.update_run(self._id, status="RUNNING")
        self._seen = {(key, m.step) for key in run.data.metrics for m in client.get_metric_history(self._id, key)}
        new = {key: value for key, value in about.hyperparameters.items() if key not in run.data.params}
        for key, value in new.items():
            client.log_batch(self._id, params=[Param(key, str(value)[:6000])])
        for row in history:
            self.step(row)

    def step(self, row: Row) -> None:
        from mlflow.entities import Metric

        step, now = int(row["step"]), int(time.time() * 1000)
        new = {tag: value for tag, value in shown(row).items() if (tag, step) not in self._seen}
        self._client.log_batch(self._id, [Metric(tag, value, now, step) for tag, value in new.items()])

    def images(self, name: str, grid: Tensor, step: int = 0) -> None:
        if step:
            self._client.log_image(self._id, pixels(grid), key=name, step=step)
        else:
            self._client.log_image(self._id, pixels(grid), f"{name}.png")

    def figure(self, name: str, figure: Path) -> None:
        self._client.log_artifact(self._id, str(figure), "figures")

    def close(self, state: str) -> None:
        self._client.set_terminated(self._id, STATUS.get(state, "FAILED"))
