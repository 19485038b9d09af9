"""Parts of networks: activations and norms, as kinds. Importing this completes their catalogues."""

from dltrain.layers import activations, batch_norms, filter_response, norms, squashing
from dltrain.layers.activations import Activation
from dltrain.layers.norms import Norm

__all__ = ["Activation", "Norm", "activations", "batch_norms", "filter_response", "norms", "squashing"]
