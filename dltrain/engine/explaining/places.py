"""The last layer of a network that still knows places, found by one forward pass in which hooks listen.

What a layer puts out has places as maps (B, C, h, w), as maps with the channels last (B, h, w, C), or as tokens
(B, N, D) of which some may come before those of the places. It counts only if the asked score depends on its places:
behind the last attention of a transformer with a class token, it does not. Imports torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.errors import RunError

PREFIXES = (0, 1, 2, 5)
"""Tokens before those of the places where a network does not say how many: class, distillation, four registers."""
FEWEST, ENOUGH = 2, 4
"""Places of a map along each side: without which it is none, and with which the last layer is taken."""

Arrange = Callable[[Tensor], Tensor]
"""What a layer puts out (B, ...) -> maps (B, C, h, w)."""


@dataclass(frozen=True)
class Places:
    """A layer whose output has places. size: height and width of its maps."""

    name: str
    layer: nn.Module
    size: tuple[int, int]
    arrange: Arrange


@dataclass(frozen=True)
class _Heard:
    """What one layer put out. is_learned: whether a layer with weights stands at it or before it."""

    name: str
    layer: nn.Module
    output: Tensor
    is_learned: bool


@dataclass(frozen=True)
class _Candidate:
    heard: _Heard
    size: tuple[int, int]
    arrange: Arrange

    @property
    def depth(self) -> int:
        return self.heard.name.count(".")

    def reached_from(self, asked: Tensor) -> bool:
        """Whether the asked score depends on the places."""
        (gradient,) = torch.autograd.grad(asked, self.heard.output, retain_graph=True, allow_unused=True)
        return gradient is not None and bool(self.arrange(gradient).count_nonzero())


def find_places(network: nn.Module, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> Places:
    """The last layer with places on which the score depends; where those of the last are very few, the last one with
    `ENOUGH` of them, if there is one.

    network: in evaluation mode; puts out its answer (B, ...). inputs: (B, C, H, W). score: of the answer, one number.
    Raises RunError when there is none.
    """
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        heard, outputs = _listen(network, inputs)
        asked = score(outputs)
        if not asked.requires_grad:
            raise RunError("no gradient comes from what the network puts out to its inputs")
        places = [*_candidates(heard, tuple(inputs.shape[2:]), _prefixes(network))]
        last = next((each for each in places if each.reached_from(asked)), None)
        if last is not None and min(last.size) < ENOUGH:
            last = _finer(places, asked) or last
        if last is not None:
            return Places(last.heard.name, last.heard.layer, last.size, last.arrange)
    if places:
        raise RunError("no layer of the network has places from which a gradient comes back")
    raise RunError(
        "no layer of the network keeps places of the image (it puts out numbers without a height and a width), so that "
        "there is no map to draw: take a convolutional network or a transformer"
    )


def _listen(network: nn.Module, inputs: Tensor) -> tuple[list[_Heard], Tensor]:
    """What the layers that run once put out, in the order in which they end, and the answer."""
    heard: list[_Heard] = []
    ran: Counter[str] = Counter()
    learned = False

    def hook(name: str, layer: nn.Module, _: Any, output: Any) -> None:
        nonlocal learned
        ran[name] += 1
        learned = learned or next(layer.parameters(recurse=False), None) is not None
        if isinstance(output, Tensor) and output.requires_grad and len(output) == len(inputs):
            heard.append(_Heard(name, layer, output, learned))

    handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in network.named_modules() if name]
    try:
        outputs: Tensor = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [each for each in heard if each.is_learned and ran[each.name] == 1], outputs


def _finer(places: list[_Candidate], asked: Tensor) -> _Candidate | None:
    """The last one with enough places; of those with its grid a block rather than a branch within the next one."""
    fine = (each for each in places if min(each.size) >= ENOUGH and each.reached_from(asked))
    last = next(fine, None)
    if last is None:
        return None
    alike = [last, *(each for each in fine if each.size == last.size)]
    return min(alike, key=lambda each: each.depth)


def _candidates(heard: list[_Heard], size: tuple[int, ...], prefixes: tuple[int, ...]) -> Iterator[_Candidate]:
    """The layers with places, the last one first. Tokens count where they are as wide as most of their number: between
    the layers of a transformer, not inside of its attention. Pools to a fixed size make places that are none."""
    tokens = [each.output for each in heard if each.output.ndim == 3 and _token_grid(each.output, size, prefixes)]
    counts = {output.shape[1] for output in tokens}
    widths = {
        count: Counter(output.shape[2] for output in tokens if output.shape[1] == count).most_common(1)[0][0]
        for count in counts
    }
    for each in reversed(heard):
        shape = each.output.shape
        if isinstance(each.layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            continue
        if each.output.ndim == 3 and widths.get(shape[1]) == shape[2]:
            if found := _token_grid(each.output, size, prefixes):
                prefix, grid = found
                yield _Candidate(each, grid, partial(_of_tokens, prefix=prefix, grid=grid))
        elif each.output.ndim == 4 and shape[2] not in counts:  # of tokens: heads of an attention
            if _fits(shape[2], shape[3], size):
                yield _Candidate(each, (shape[2], shape[3]), _as_it_is)
            elif _fits(shape[1], shape[2], size):
                yield _Candidate(each, (shape[1], shape[2]), _of_channels_last)


def _prefixes(network: nn.Module) -> tuple[int, ...]:
    """How many tokens may come before those of the places: what the network says, as those of timm do."""
    said = (getattr(module, "num_prefix_tokens", None) for module in network.modules())
    known = next((count for count in said if isinstance(count, int)), None)
    return PREFIXES if known is None else (known,)


def _fits(height: int, width: int, image: tuple[int, ...]) -> bool:
    """Whether a grid has the proportions of the image, up to rounding, and no more places than it has pixels."""
    inside = FEWEST <= height <= image[0] and FEWEST <= width <= image[1]
    return inside and abs(height * image[1] - width * image[0]) <= max(image)


def _token_grid(
    tokens: Tensor, image: tuple[int, ...], prefixes: tuple[int, ...]
) -> tuple[int, tuple[int, int]] | None:
    """How many of the tokens (B, N, D) are none of places, and the grid of the others."""
    for prefix in prefixes:
        count = tokens.shape[1] - prefix
        height = round(math.sqrt(max(count, 0) * image[0] / image[1]))
        if height and count % height == 0 and _fits(height, count // height, image):
            return prefix, (height, count // height)
    return None


def _as_it_is(output: Tensor) -> Tensor:
    return output


def _of_channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _of_tokens(output: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    return output[:, prefix:].transpose(1, 2).reshape(len(output), -1, *grid)
