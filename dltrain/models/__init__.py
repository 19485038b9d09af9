"""Networks. Importing this completes the catalogue of the kind `Model`."""

from dltrain.models import (
    airbench,
    densenet,
    gated,
    inception,
    lenet,
    libraries,
    modular,
    nasnet,
    plain,
    published,
    residual,
    resnet,
    sequential,
    simple,
)
from dltrain.models.base import Model

__all__ = [
    "Model", "airbench", "densenet", "gated", "inception", "lenet", "libraries", "modular", "nasnet",
    "plain", "published", "residual", "resnet", "sequential", "simple",
]  # fmt: skip
