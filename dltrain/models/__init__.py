"""Networks. Importing this completes the catalogue of the kind `Model`."""

from dltrain.models import (
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
    simple,
)
from dltrain.models.base import Model, Preprocessing

__all__ = [
    "Model", "Preprocessing", "densenet", "gated", "inception", "lenet", "libraries", "modular", "nasnet", "plain",
    "published", "residual", "resnet", "simple",
]  # fmt: skip
