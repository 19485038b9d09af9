"""The small stem: the first layers of a network made for photos, as small images need them."""

from __future__ import annotations

import torch
from torch import nn

from dltrain.data.types import ImageShape
from dltrain.layers.impl import sites
from dltrain.layers.impl.probe import native_probe


def small_stem(network: nn.Module, shape: ImageShape) -> bool:
    """Make the first convolution 3x3 with stride 1, and leave out the max pool before the first block.

    The new weights have the spread of the old ones, for as many summands. Returns whether the network has such a
    stem: a first convolution with a stride below its kernel (patches of a transformer, for instance, are none).
    """
    probe = native_probe(network, shape)
    name = next(probe.called(nn.Conv2d), None)
    old = probe.modules[name] if name is not None else None
    if name is None or not isinstance(old, nn.Conv2d) or not 1 < old.stride[0] < old.kernel_size[0]:
        return False
    new = type(old)(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=old.bias is not None)
    if not old.weight.is_meta:
        scale = (old.kernel_size[0] * old.kernel_size[1] / 9) ** 0.5
        with torch.no_grad():
            new.weight.normal_(std=old.weight.std().item() * scale)
            if new.bias is not None and old.bias is not None:
                new.bias.copy_(old.bias)
    network.set_submodule(name, new)
    blocks = sites.blocks(probe)
    first = min((probe.calls[block][0].order for block in blocks), default=None)
    for pool in probe.called(nn.MaxPool2d):
        inside = any(pool.startswith(f"{block}.") for block in blocks)
        if not inside and (first is None or probe.calls[pool][0].order < first):
            network.set_submodule(pool, nn.Identity())
        break
    return True
