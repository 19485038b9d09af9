"""Class-activation maps: how much each place of an image speaks for one of the answers. Imports torch.

The maps are those of the library grad-cam, which is imported where one is asked for: extra `explain`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from dltrain.engine.explaining.places import Places, find_places
from dltrain.engine.predictor import Predictor
from dltrain.errors import RunError
from dltrain.tasks.impl.base import Readings
from dltrain.tasks.impl.objectives import answer_of

Method = Literal["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"]
METHODS: dict[Method, str] = {
    "gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}  # fmt: skip
"""Their classes in grad-cam. `eigencam` knows no class: it shows what varies most over the places."""
assert set(METHODS) == set(get_args(Method))


def require_library() -> None:
    """Raise RunError, which names the extra, when the library is not installed."""
    if find_spec("pytorch_grad_cam") is None:
        raise RunError("explain draws its maps with grad-cam, which is not installed: pip install 'dltrain[explain]'")


class Answering(nn.Module):
    """A network as a function of its inputs to its answer (B, ...) alone, in the precision of the predictor."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.network = predictor.model
        self._autocast: Callable[[], AbstractContextManager[Any]] = predictor.autocast

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...), float32 or wider."""
        with self._autocast():
            answer = answer_of(self.network(inputs))
        return answer if answer.dtype == torch.float64 else answer.float()


class Mapper:
    """Draws maps of one network, all by the same layer."""

    def __init__(self, predictor: Predictor, inputs: Tensor, method: Method) -> None:
        """inputs: (B, C, H, W), some that the network may be tried with. Raises RunError for a network or a task
        that has no maps, or when the library is not installed."""
        require_library()
        self._predictor, self._method = predictor, method
        self.network = Answering(predictor).eval()
        for parameter in self.network.parameters():  # gradients of places alone are asked for
            parameter.requires_grad_(False)
        with torch.no_grad():
            self.are_probabilities = self.readings(inputs).are_probabilities
        found = find_places(self.network, inputs, lambda outputs: self._asked(outputs))
        self.places = Places(found.name.removeprefix("network."), found.layer, found.size, found.arrange)

    def _asked(self, outputs: Tensor) -> Tensor:
        read = self._of(outputs)
        return read.scores.gather(1, read.answers[:, None]).sum()

    def readings(self, inputs: Tensor) -> Readings:
        """What the network says of each name of the targets. inputs: (B, C, H, W)."""
        return self._of(self.network(inputs))

    def _of(self, outputs: Tensor) -> Readings:
        read = self._predictor.task.readings(outputs)
        if read is None:
            name = self._predictor.experiment.resolved_task.name
            raise RunError(f"a map is of one answer among several, and task `{name}` has none")
        return read

    def maps(self, inputs: Tensor, names: Tensor) -> np.ndarray:
        """(B, H, W) float32 in 0..1, of each image for the name at `names` (B,). A map that is 0 everywhere says that
        no place speaks for the name."""
        import pytorch_grad_cam

        def arranged(output: Tensor) -> Tensor:  # a copy: what follows may compute in place
            return self.places.arrange(output).float().clone()

        def target(name: int) -> Callable[[Tensor], Tensor]:
            def score(output: Tensor) -> Tensor:
                return self._of(output[None]).scores[0, name]

            return score

        with torch.enable_grad():
            cam = getattr(pytorch_grad_cam, METHODS[self._method])(self.network, [self.places.layer], arranged)
            try:
                found = cam(inputs.detach().requires_grad_(), [target(name) for name in names.tolist()])
            finally:
                cam.activations_and_grads.release()
        maps = np.nan_to_num(np.asarray(found, dtype=np.float32), posinf=0.0, neginf=0.0)
        return maps.clip(0, 1)
