"""Whether a network has the derivatives that a training without a backward pass takes. Imports torch."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

from dltrain.data.types import InputSpec
from dltrain.experiment.experiment import Experiment
from dltrain.optim.impl.gradients import forward_mode

WORDS = ("forward AD", "forward mode AD", "jvp")
"""What torch says where an operation has no such derivative."""


def require_forward_mode(experiment: Experiment, model: nn.Module, shape: InputSpec) -> None:
    """Raise ConfigError where an operation of `model` has no forward-mode derivative, found by a pass on shapes."""
    for device in ("meta", "cpu"):
        try:
            with ThreadPoolExecutor(1) as own:  # after some failures torch differentiates nothing more in their thread
                own.submit(_try_forward_mode, model, shape, device).result()
        except Exception as error:  # networks that look at numbers fail without any
            text = str(error).splitlines()[0] if str(error) else ""
            if any(word in text for word in WORDS):
                message = f"gradient `{experiment.gradient.name}` cannot go through model `{experiment.model.name}`"
                other = "`spsa` and `mezo` need no derivative"
                raise experiment.error("gradient", f"{message}: {text}", other) from None
        else:
            return


def _try_forward_mode(model: nn.Module, shape: InputSpec, device: str) -> None:
    copied = copy.deepcopy(model).to(device).train()
    with torch.random.fork_rng(devices=[]), torch.no_grad(), forward_mode():
        duals = {
            name: forward_ad.make_dual(weight.detach(), torch.ones_like(weight))  # type: ignore[no-untyped-call]
            for name, weight in copied.named_parameters()
        }
        functional_call(copied, duals, (shape.example(2, device),))
