"""Parts of networks: activations, norms, attention, initial weights, as kinds. Importing this completes their
catalogues."""

from dltrain.layers import (
    activations,
    attention,
    batch_norms,
    dynamic_activations,
    filter_response,
    initializations,
    norms,
    rational_activations,
    sigmoid_activations,
    trainable_activations,
    weight_norms,
)
from dltrain.layers.activations import Activation
from dltrain.layers.attention import Attention
from dltrain.layers.initializations import Initialization
from dltrain.layers.norms import Norm

__all__ = [
    "Activation", "Attention", "Initialization", "Norm", "activations", "attention", "batch_norms",
    "dynamic_activations", "filter_response", "initializations", "norms", "rational_activations", "sigmoid_activations",
    "trainable_activations", "weight_norms",
]  # fmt: skip
