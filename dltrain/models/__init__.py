"""Networks. Importing this completes the catalogue of the kind `Model`."""

from dltrain.models import lenet, libraries, resnet, simple
from dltrain.models.base import Model, Preprocessing

__all__ = ["Model", "Preprocessing", "lenet", "libraries", "resnet", "simple"]
