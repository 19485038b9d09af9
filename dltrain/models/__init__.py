"""Networks. Importing this completes the catalogue of the kind `Model`."""

from dltrain.config.folders import import_modules
from dltrain.models.base import ImageModel, Model

import_modules(__name__, __path__)

__all__ = ["ImageModel", "Model"]
