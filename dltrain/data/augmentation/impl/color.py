"""Pixel values: batched brightness, contrast, colour and noise, each example with its own draws.

Adjustments take images (B, C, H, W) of values 0..255 and one factor per example, (B,), where 1 changes
nothing; they return float32 in 0..255. The definitions are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dltrain.data.augmentation.impl.geometry import send
from dltrain.data.random import Draws
from dltrain.data.types import Batch

Adjust = Callable[[Tensor, Tensor], Tensor]


def per_image(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def blend(plain: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """`plain` at factor 0, `images` at 1, extrapolated beyond and clipped to 0..255."""
    return torch.lerp(plain, images.float(), per_image(factors)).clamp_(0, 255)


def luma(images: Tensor) -> Tensor:
    """Grey levels (B, 1, H, W), float32: ITU-R 601 weights for RGB, the mean for other channel counts."""
    images = images.float()
    if images.shape[1] == 3:
        red, green, blue = images.unbind(1)
        return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)[:, None]
    return images.mean(1, keepdim=True)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """The image times its factor."""
    return (images.float() * per_image(factors)).clamp_(0, 255)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Away from the image's mean grey level."""
    return blend(luma(images).mean((1, 2, 3), keepdim=True), images, factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Away from each pixel's own grey; nothing happens to one channel."""
    return images.float() if images.shape[1] == 1 else blend(luma(images), images, factors)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """The hue of HSV moved by `turns` of the colour circle; nothing happens to one channel."""
    if images.shape[1] == 1:
        return images.float()
    images = images.float()
    red, green, blue = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    safe = chroma + (chroma == 0)
    # The hue in turns, by the channel that is largest. Blending with 0 and 1 is several times faster than `where`.
    angle = torch.lerp((red - green) / safe + 4, (blue - red) / safe + 2, (value == green).float())
    angle = torch.lerp(angle, (green - blue) / safe, (value == red).float()) / 6 + turns.view(-1, 1, 1)
    # Back from HSV: a channel falls from V to V - VS with the distance of the hue from the channel's own.
    places = torch.stack([angle, angle - 1 / 3, angle + 1 / 3], 1)
    share = (places - places.round()).abs_().mul_(6).sub_(1).clamp_(0, 1)
    return torch.addcmul(value[:, None], chroma[:, None], share, value=-1)


def adjusted(batch: Batch, draws: Draws, adjust: Adjust, low: float, high: float) -> Batch:
    """`adjust` with a factor per example uniform in [low, high)."""
    return batch.with_(inputs=adjust(batch.inputs, draws.uniform(len(batch), low=low, high=high)))


def color_jitter(batch: Batch, draws: Draws, steps: list[tuple[Adjust, float, float]]) -> Batch:
    """Every adjustment in turn, in an order drawn for each batch, with factors drawn for each example."""
    count = len(batch)
    factors = [draws.uniform(count, low=low, high=high) for _, low, high in steps]
    order = torch.randperm(len(steps), generator=draws.host.generator).tolist()
    # On a CPU, a few images at a time: at 224 pixels that is twice as fast, as what is between stays in the cache.
    size = max(1, 2**19 // batch.inputs[0].numel()) if batch.inputs.device.type == "cpu" else count
    parts = []
    for start in range(0, count, size):
        images = batch.inputs[start : start + size]
        for i in order:
            images = steps[i][0](images, factors[i][start : start + size])
        parts.append(images)
    return batch.with_(inputs=torch.cat(parts))


def color_noise(batch: Batch, draws: Draws, strength: float, axes: Tensor) -> Batch:
    """Adds `axes @ alpha` to all pixels of an image, alpha ~ N(0, strength^2); axes: (C, C), columns U * L."""
    alpha = draws.normal(len(batch), len(axes)) * strength
    shift = (alpha @ send(axes, alpha.device).mT) * 255
    return batch.with_(inputs=batch.inputs.float() + shift[:, :, None, None])


def grayscale(batch: Batch, draws: Draws, probability: float) -> Batch:
    """All channels equal to the grey level, with the given probability."""
    chosen = draws.chance(probability, len(batch))
    if batch.inputs.shape[1] == 1:
        return batch
    return batch.with_(inputs=blend(luma(batch.inputs), batch.inputs, (~chosen).float()))


def gaussian_noise(batch: Batch, draws: Draws, std: float) -> Batch:
    """Independent normal noise on every value, clipped to 0..255; std in units of the full range."""
    noise = draws.normal(*batch.inputs.shape) * (255 * std)
    return batch.with_(inputs=noise.add_(batch.inputs).clamp_(0, 255))


def gaussian_blur(batch: Batch, draws: Draws, probability: float, low: float, high: float) -> Batch:
    """Smoothed by a Gaussian whose sigma, in pixels, is log-uniform in [low, high), with the given probability."""
    count, (height, width) = len(batch), batch.inputs.shape[2:]
    chosen = draws.chance(probability, count)
    sigma = draws.uniform(count, low=math.log(low), high=math.log(high)).exp()
    sigma = torch.where(chosen, sigma, 1e-3)  # so narrow that it is the identity
    blurred = _smoothing(sigma, height) @ (batch.inputs.float() @ _smoothing(sigma, width).mT)
    return batch.with_(inputs=blurred)


def _smoothing(sigma: Tensor, size: int) -> Tensor:
    """(B, 1, size, size) rows of Gaussian weights; at the borders they are renormalised."""
    line = torch.arange(size, device=sigma.device)
    distance = (line[:, None] - line) / sigma.view(-1, 1, 1, 1)
    return torch.softmax(distance.square() * -0.5, dim=-1)
