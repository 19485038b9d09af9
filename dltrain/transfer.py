"""`initialize_from`: start from another training's weights, and say exactly what was loaded."""

from __future__ import annotations

from torch import Tensor, nn

from dltrain.experiment import Experiment
from dltrain.runs import Run, RunError

SHOWN = 20
"""Names of weights in one line."""


def initialize(experiment: Experiment, model: nn.Module) -> list[str]:
    """Copy the weights whose name and shape fit from `experiment.initialize_from` into `model`.

    Returns lines that say what was and was not loaded. Raises ConfigError when nothing fits.
    """
    path = experiment.initialize_from
    if path is None:
        return []
    try:
        run, file = Run.open(path)
        file, state = run.checkpoint_at(file or (run.best if run.best.exists() else run.last))
    except RunError as error:
        raise experiment.error("initialize_from", str(error)) from None
    source: dict[str, Tensor] = state["model"]
    if state["average"] is not None:
        source = {**source, **state["average"]}
    target = model.state_dict()
    fits = {name: tensor for name, tensor in source.items() if name in target and target[name].shape == tensor.shape}
    shapes = [name for name in source if name in target and name not in fits]
    missing = [name for name in target if name not in source]
    unused = [name for name in source if name not in target]
    if not fits:
        message = f"no weight of {file} fits model `{experiment.model.name}`"
        raise experiment.error("initialize_from", message, "it was trained with another model")
    own = model.state_dict()  # not a plain dict: it carries the versions of the modules
    own.update(fits)
    model.load_state_dict(own)
    lines = [f"initialized from {file}: {len(fits)} of {len(target)} tensors loaded"]
    for what, names in (
        ("of another shape, not loaded", shapes), ("not in the checkpoint, left as they were", missing),
        ("in the checkpoint, not in the model", unused),
    ):  # fmt: skip
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"  {what}: {', '.join(names[:SHOWN])}{more}")
    return lines
