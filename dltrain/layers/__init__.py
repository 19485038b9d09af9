"""Parts of networks: activations, norms, attention, as kinds. Importing this completes their catalogues."""

from dltrain.layers import activations, attention, batch_norms, filter_response, norms, squashing
from dltrain.layers.activations import Activation
from dltrain.layers.attention import Attention
from dltrain.layers.norms import Norm

__all__ = [
    "Activation", "Attention", "Norm", "activations", "attention", "batch_norms", "filter_response", "norms",
    "squashing",
]  # fmt: skip
