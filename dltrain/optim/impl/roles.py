"""What each parameter of a network does: the words of `no_decay`, and the matrices that are hidden layers' weights.

Found from the module that has the parameter, from its shape, and from what the network says itself; only where these
leave it open, from its name. Imports torch: import it where a training is built.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.modules.conv import _ConvNd

from dltrain.layers.roles import role_of
from dltrain.optim.exemptions import EXEMPTIONS

_SIZES = ("num_features", "num_channels", "normalized_shape")
_MULTIPLIES = (nn.Linear, nn.Bilinear, _ConvNd, nn.MultiheadAttention, nn.RNNBase, nn.Embedding)
"""Layers whose parameters of two and more dimensions are weights, of whatever shape."""
_POSITION = re.compile(r"(^|_)(pos|rel)(_|$)|position")
"""Names of parameters of positions, for matrices whose module shows nothing."""


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Each parameter that is trained, with its name; a shared one once."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def exempt(model: nn.Module, words: Iterable[str]) -> set[str]:
    """The names of the parameters that `words` mean: those of EXEMPTIONS, or patterns of names."""
    words = set(words)
    kinds, patterns = words & set(EXEMPTIONS), words - set(EXEMPTIONS)
    found = {name for name, roles in roles_of(model).items() if roles & kinds}
    return found | {n for n, _ in model.named_parameters() if any(fnmatch.fnmatchcase(n, p) for p in patterns)}


def hidden_matrices(model: nn.Module) -> set[str]:
    """The names of the weights of hidden layers: of two and more dimensions, without the last layer's and those of
    embeddings. A network of timm says which layer is the last; in others it is the last one that is defined."""
    roles, owners = roles_of(model), _owners(model)
    found = [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and not roles[name] and not isinstance(owners[name], nn.Embedding)
    ]
    return set(found) - (_classifier(model) or set(found[-1:]))


def roles_of(model: nn.Module) -> dict[str, frozenset[str]]:
    """For each parameter, the words of EXEMPTIONS that hold.

    `bias`: what is added to something else, so also class tokens and position embeddings, which are the same for all
    examples (1, ...), and tables of relative positions. `norm`: the parameters of normalisations, and other vectors,
    such as layer scales. `activation`: those of activations. What a network lists in its `no_weight_decay()` is both
    of the first two. The rest, the weights of layers, are none.
    """
    owners, listed = _owners(model), list(_listed(model))
    found = {}
    for name, parameter in model.named_parameters():
        words = set(_words(name.rpartition(".")[2], parameter, owners[name]))
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in listed):
            words |= {"bias", "norm"}
        found[name] = frozenset(words)
    return found


def _words(key: str, parameter: nn.Parameter, owner: nn.Module) -> Iterator[str]:
    named = key == "bias" or key.startswith("bias_") or key.endswith("_bias")
    alone = not isinstance(owner, _MULTIPLIES) and role_of(owner) != "activation"
    if named or (alone and _is_added(key, parameter, owner)):
        yield "bias"
    vector = parameter.ndim == 1 or parameter.numel() == max(parameter.shape, default=1)
    if _is_norm(owner, parameter) or (alone and vector and not named):
        yield "norm"
    if role_of(owner) == "activation":
        yield "activation"


def _is_added(key: str, parameter: nn.Parameter, owner: nn.Module) -> bool:
    """Whether a parameter that is no layer's weight is the same for all examples, looked up, or one of positions."""
    if parameter.ndim < 2:
        return False
    looked_up = any(not buffer.is_floating_point() for buffer in owner.buffers(recurse=False))
    return (parameter.ndim > 2 and parameter.shape[0] == 1) or looked_up or bool(_POSITION.search(key))


def _is_norm(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether a parameter belongs to a normalisation: by the role of the module, or a vector in a module that states
    what it normalises."""
    if role_of(module) == "norm":
        return True
    return parameter.ndim == 1 and any(hasattr(module, size) for size in _SIZES)


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    """The module that has each parameter first, by the parameter's name."""
    first = {id(p): module for module in reversed(list(model.modules())) for p in module.parameters(recurse=False)}
    return {name: first[id(parameter)] for name, parameter in model.named_parameters()}


def _listed(model: nn.Module) -> Iterator[str]:
    """The names, or patterns of names, that networks list themselves as without weight decay."""
    for path, module in model.named_modules():
        if callable(own := getattr(module, "no_weight_decay", None)):
            yield from (f"{path}.{name}" if path else name for name in own())


def _classifier(model: nn.Module) -> set[str]:
    """The names of the parameters of what a network says is its last layer, or layers."""
    inside: set[int] = set()
    for module in model.modules():
        if callable(own := getattr(module, "get_classifier", None)):
            given = own()
            layers = given if isinstance(given, tuple | list) else [given]
            inside |= {id(p) for layer in layers if isinstance(layer, nn.Module) for p in layer.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}
