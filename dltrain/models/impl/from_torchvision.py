"""torchvision's classification networks, for any number of channels and classes."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.ops import StochasticDepth

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.pretrained import PretrainedInputs
from dltrain.data.types import ImageShape
from dltrain.models.impl.downloads import downloading
from dltrain.models.impl.fitting import fit
from dltrain.models.impl.library_options import Wishes

_SIZES = {"VisionTransformer": "image_size", "MaxVit": "input_size"}
"""Networks made for one image size, and the argument that says which."""

_TIMM_FORMS = ("ResNet", "DenseNet", "Inception3")
"""Networks that timm has with weights of the same names, and with one activation module for each place."""


def build(name: str, shape: ImageShape, classes: int, wishes: Wishes) -> nn.Module:
    """The network `name`: (B, C, H, W) -> (B, K), without auxiliary heads unless wished for.

    The first convolution is made for the channels of `shape`. Pretrained, its weights over red, green and
    blue are summed for one channel (equal to the original on grey images), else repeated and scaled by
    3 / C; the last layer starts random unless the number of classes is that of the weights. Rates that the
    network has no place for are left out.
    Raises ConfigError when the network takes no such images, or a download fails.
    """
    label = wishes.label or name
    kind = _network_class(name)
    arguments = _arguments(kind, wishes.dropout, wishes.auxiliary)

    def construct(shape: ImageShape) -> nn.Module:
        network: nn.Module = models.get_model(
            name, weights=None, num_classes=classes, **arguments, **_size(label, kind, shape)
        )
        if shape.channels != 3:
            _replace_first(network, shape.channels)
        return wishes.stem(network)

    network = fit(label, shape, construct, fixed=kind.__name__ in _SIZES, training=wishes.auxiliary)
    if wishes.drop_path is not None:
        _set_drop_path(network, wishes.drop_path)
    if wishes.pretrained:
        _load(name, label, network)
    return _unshared(name, network, shape, classes, wishes) if wishes.exchangeable else network


def arguments_for(name: str, shape: ImageShape) -> dict[str, Any]:
    """What torchvision's own function must be told, beside the number of classes, for the network `name` that `build`
    makes of such images."""
    kind = _network_class(name)
    return {**_arguments(kind, None, False), **_size(name, kind, shape)}


def _unshared(name: str, network: nn.Module, shape: ImageShape, classes: int, wishes: Wishes) -> nn.Module:
    """timm's form of the same network with the same weights, where torchvision's calls activations as functions or
    one module for layers of several widths, so that they cannot be exchanged; else `network` itself.
    """
    if wishes.auxiliary or type(network).__name__ not in _TIMM_FORMS:
        return network
    import timm

    rates: dict[str, Any] = (
        {"proj_drop_rate": wishes.dropout} if isinstance(network, models.DenseNet) and wishes.dropout else {}
    )
    with torch.device("meta"):
        form: nn.Module = timm.create_model(name, num_classes=classes, in_chans=shape.channels, **rates)
        form = wishes.stem(form)
    form.load_state_dict(network.state_dict(), assign=True)
    return form


def preprocessing(name: str) -> PretrainedInputs:
    """What the default weights of `name` expect."""
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    crop = transforms.crop_size[0]
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if "transform_input" in inspect.signature(_network_class(name)).parameters:
        # These undo the usual scaling inside the network, to -1..1; without that step the scaling is this one.
        mean = std = (0.5, 0.5, 0.5)
    return PretrainedInputs(mean, std, (crop, crop), crop / transforms.resize_size[0], transforms.interpolation.value)


def _network_class(name: str) -> type[nn.Module]:
    result: type[nn.Module] = inspect.signature(models.get_model_builder(name)).return_annotation
    return result


def _arguments(kind: type[nn.Module], dropout: float | None, auxiliary: bool) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    arguments: dict[str, Any] = {}
    if "aux_logits" in known:
        arguments |= {"aux_logits": auxiliary, "init_weights": True, "transform_input": False}
    option = next((option for option in ("dropout", "drop_rate") if option in known), None)
    if dropout is not None and option is not None:
        arguments[option] = dropout
    return arguments


def _size(label: str, kind: type[nn.Module], shape: ImageShape) -> dict[str, Any]:
    option = _SIZES.get(kind.__name__)
    if option == "image_size":
        if shape.height != shape.width:
            note = f"set `data.size: {max(shape.height, shape.width)}`, for instance"
            message = f"model `{label}` takes square images only, not {shape}"
            raise ConfigError([Diagnostic(message, notes=(note,))])
        return {option: shape.height}
    return {option: (shape.height, shape.width)} if option else {}


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Every network of torchvision has exactly one convolution that sees the image."""
    return next((key, m) for key, m in network.named_modules() if isinstance(m, nn.Conv2d))


def _replace_first(network: nn.Module, channels: int) -> None:
    """Make the first convolution take `channels` channels, with weights that keep its outputs' variance."""
    key, old = _first_convolution(network)
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)  # type: ignore[arg-type]
    if not new.weight.is_meta:
        nn.init.normal_(new.weight, std=old.weight.std().item() * (old.in_channels / channels) ** 0.5)
    if new.bias is not None and old.bias is not None:
        with torch.no_grad():
            new.bias.copy_(old.bias)
    network.set_submodule(key, new)


def _set_drop_path(network: nn.Module, rate: float) -> None:
    """Stochastic depth that grows from 0 at the first block to `rate` at the last, where the network has it."""
    sites = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    for index, site in enumerate(sites):
        site.p = rate * index / max(len(sites) - 1, 1)


def _load(name: str, label: str, network: nn.Module) -> None:
    """Copy the pretrained weights; only the last layer may differ in shape."""
    weights = models.get_model_weights(name).DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    with downloading(label, weights.url.rsplit("/", 1)[-1], str(folder)):
        state: dict[str, Tensor] = models.get_model(name, weights=weights).state_dict()
    if isinstance(network, models.VisionTransformer):
        state = interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(state))
    key, first = _first_convolution(network)
    state[f"{key}.weight"] = _adapt_channels(state[f"{key}.weight"], first.in_channels)
    own = network.state_dict()
    head = [key for key, value in own.items() if state[key].shape != value.shape]
    if any(own[key].shape[1:] != state[key].shape[1:] for key in head):
        raise RuntimeError(f"the weights of {label} do not fit its network at {head}")
    own.update({key: state[key] for key in own if key not in head})  # `own` carries versions that MNASNet asks for
    network.load_state_dict(own)


def _adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """(O, 3, h, w) -> (O, channels, h, w)."""
    if channels == 3:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels)
