"""diagnosis: says when a training learns nothing, what it looks like, and which key to change.

An epoch's metrics -> no better than guessing? -> look at the network on a batch -> a sentence. Looking
changes neither weights nor what the next step draws. Imports torch: import it where a training runs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dltrain.engine.trainer import Trainer
from dltrain.experiment.experiment import Experiment
from dltrain.runs.reports import Row
from dltrain.tasks.guess import Guess

DEAD = 0.9
"""Share of constant units from which a layer lets hardly anything through."""
FAR = 2.0
"""Times the loss of guessing from which the loss of a network that only guesses shows steps that were too large."""
DIVERGED = 5.0
"""The same for the training loss of a network that does better than guessing."""


def diagnose(trainer: Trainer, experiment: Experiment) -> str | None:
    """Why the last epoch was no better than guessing, in a sentence or two; None when it was better."""
    guess, row = trainer.guess, trainer.history[-1]
    if guess is None:
        return None
    if not guess.is_as_good_as(row):
        loss = row["train/loss"]
        if loss < DIVERGED * max(guess.loss, 1.0):
            return None
        return (
            f"the training loss of {loss:.3g} is far above that of guessing ({guess.loss:.3g}): {_shorter(experiment)}"
        )
    return f"nothing is learnt: {guess.told(row)}. {_cause(trainer, experiment, row, guess)}"


def _cause(trainer: Trainer, experiment: Experiment, row: Row, guess: Guess) -> str:
    loss = row.get("validation/loss", row["train/loss"])
    if not loss < FAR * guess.loss:
        return f"The loss is {loss:.3g}, that of guessing {guess.loss:.3g}: {_shorter(experiment)}"
    dead, one = first_dead(trainer), trainer.parts.shape.one
    if dead is not None:
        layer, share = dead
        return (
            f"In `{layer}`, {share:.0%} of the units give every {one} the same value (dead units): the weights start "
            f"badly (`model.initialization`), or {_shorter(experiment)}"
        )
    lr = experiment.optimizer.lr
    return (
        f"The loss is {loss:.3g}, that of guessing {guess.loss:.3g}, and the units are alive: either it needs more "
        f"steps or a higher `optimizer.lr` (now {lr:g}), or the labels have nothing to do with the {one}s"
    )


def _shorter(experiment: Experiment) -> str:
    """What to change when steps are too large."""
    keys = [f"a lower `optimizer.lr` (now {experiment.optimizer.lr:g})"]
    if experiment.schedule.warmup is None:
        keys.append("`schedule.warmup: {epochs: 1}`")
    if experiment.training.clip_norm is None:
        keys.append("`training.clip_norm: 1`")
    return f"the steps are too large; try {' or '.join(keys)}"


@torch.no_grad()
def first_dead(trainer: Trainer, count: int = 64) -> tuple[str, float] | None:
    """The first layer, in the order in which they run, most of whose units give every example the same value, and the
    share of those units."""
    found: list[tuple[str, float]] = []
    network, parts = trainer.parts.model, trainer.parts
    batches = (parts.validation or parts.train).evaluation_batches(1)  # of all classes
    batch, valid = next(iter(batches))

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim > 1 and output.is_floating_point() and not found:
                values = output.float().flatten(2) if output.ndim > 2 else output.float()[:, :, None]
                spread = values.amax((0, 2)) - values.amin((0, 2))
                share = float((spread <= 1e-6 * values.abs().amax((0, 2))).float().mean())
                if share >= DEAD:
                    found.append((name, share))

        return hook

    was_training = network.training
    network.eval()
    handles = [
        module.register_forward_hook(look(name))
        for name, module in network.named_modules()
        if not any(module.children())
    ]
    try:
        with parts.autocast():
            network(parts.pipeline.evaluate(batch.inputs)[: min(valid, count)])
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    return found[0] if found else None
