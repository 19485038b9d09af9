"""Parts of networks: activations, norms, attention, initial weights, as kinds. Importing this completes their
catalogues."""

from dltrain.config.folders import import_modules
from dltrain.layers.activations import Activation
from dltrain.layers.attention import Attention
from dltrain.layers.initializations import Initialization
from dltrain.layers.norms import Norm

import_modules(__name__, __path__)

__all__ = ["Activation", "Attention", "Initialization", "Norm"]
