"""`adapt`: a checkpoint made fit for images of another kind (Li et al. 2016, arXiv 1603.04779).

Batch norm's mean and variance are measured anew on unlabelled images; no weight changes. The result is a checkpoint
that every command takes where it takes a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from dltrain.commands.evaluate import find_checkpoint
from dltrain.commands.predict import decoded, image_files, require_files
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import RunError
from dltrain.layers.impl.statistics import averaging_layers, measuring, single_values
from dltrain.runs import checkpoints
from dltrain.runs.run import Run


def adapt_run(
    path: str, inputs: list[Path], output: Path, which: str, device: str, display: Display, batch_size: int = 128
) -> None:
    """Write the checkpoint of the run at `path`, adapted to all images of `inputs`, to `output`.

    Raises RunError when a path does not exist or `output` does, the network has no batch norm, or no image can be read.
    """
    run, file = Run.open(path)
    if output.suffix != ".pt":
        raise RunError(f"the checkpoint {output} must be a .pt file")
    if not output.parent.is_dir():
        raise RunError(f"there is no folder {output.parent}")
    if output.exists():
        raise RunError(f"{output} exists already: it is not overwritten")
    files = list(image_files(inputs))
    found, state = find_checkpoint(run, file, which)
    predictor = restore_predictor(state, device, found)
    predictor.look("center_crop", None)
    target = predictor.layout, require_files(predictor)
    if not averaging_layers(predictor.model):
        raise RunError(f"network `{predictor.experiment.model.name}` has no batch norm whose statistics could adapt")
    seen: list[int] = []
    network = predictor.model.requires_grad_(True)  # what was frozen in training is measured here too
    alone = list(single_values(network, predictor.preprocessing.shape, images=1))

    def batches() -> Iterable[Tensor]:
        parts = -(-len(files) // batch_size)  # of about one size: each weighs the same
        for batch in decoded(iter(files), [target], -(-len(files) // parts)):
            images = []
            for _, future in batch:
                try:
                    images += future.result()
                except ConfigError as error:
                    display.warning(error.diagnostics[0].message)
            seen.append(len(images))
            if len(images) == 1 and alone:
                raise RunError(f"batch norm `{alone[0]}` cannot measure a single image, of one pixel there: give more")
            if images:
                yield torch.stack(images)

    adapt_statistics(predictor, batches())
    if not sum(seen):
        raise RunError("none of the images could be read")
    adapted = {name: tensor.cpu() for name, tensor in predictor.model.state_dict().items()}
    about = {**state["about"], "adapted": {"from": str(found), "images": sum(seen)}}
    kept = "model" if state["average"] is None else "average"
    checkpoints.save({**state, "about": about, kept: adapted}, output)
    display.note(f"batch norm measured on {sum(seen):,} images")


@torch.no_grad()
def adapt_statistics(predictor: Predictor, batches: Iterable[Tensor]) -> None:
    """The running statistics of the network become the means of those of the batches (B, C, H, W) uint8.

    All other layers are as in evaluation: dropout is silent.
    """
    with measuring(predictor.model) as numbers:
        for images, _ in zip(batches, numbers):
            predictor.outputs(images)
