"""Whether a map means something: what an answer loses when the region that the map calls important is hidden, against
regions of the same shape that lie elsewhere by chance. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dltrain.data.random import derive_seed
from dltrain.engine.explaining.maps import Mapper
from dltrain.engine.predictor import Predictor

RANDOM = 19
"""Regions by chance that are hidden of each image: of 20 regions that are all alike, one of 20 matters most."""
WITHOUT_MEAN = ("none", "min_max")
"""Scalings that do not hold the mean of the training images."""


@dataclass(frozen=True)
class Hidden:
    """What hiding changes. region: (H, W) bool. before: what the network said. after: with the region hidden;
    elsewhere: with each of the random regions hidden, (RANDOM,). Drops are of a probability how much less it became,
    of a number how far it moved."""

    region: np.ndarray
    before: float
    after: float
    elsewhere: np.ndarray
    falls: bool

    @property
    def drop(self) -> float:
        return float(self._drops(np.array(self.after)))

    @property
    def random_drops(self) -> np.ndarray:
        """(RANDOM,)."""
        return self._drops(self.elsewhere)

    @property
    def beyond_chance(self) -> bool:
        """Whether hiding the region costs something, and more than hiding any of the random ones."""
        return self.drop > 0 and self.beats == len(self.elsewhere)

    @property
    def beats(self) -> int:
        """How many of the random ones the region matters more than."""
        return int((self.drop > self.random_drops).sum())

    def _drops(self, values: np.ndarray) -> np.ndarray:
        return self.before - values if self.falls else np.abs(self.before - values)


def filling(predictor: Predictor, images: Tensor) -> tuple[Tensor, str]:
    """What hides a region, (1, C, H, W) or (1, C, 1, 1) in 0..255, and what it is: the mean that the scaling of the
    inputs holds, or else that of the images (B, C, H, W) that are asked about."""
    scaling = predictor.pipeline.scaling
    if predictor.experiment.data.scaling in WITHOUT_MEAN:
        return images.float().mean((0, 2, 3), keepdim=True), "the mean colour of the first images asked about"
    nothing = torch.zeros_like(predictor.pipeline.evaluate(images[:1]))
    return scaling.invert(nothing).clamp(0, 255), "the mean of the training images"


def important(map_: np.ndarray, share: float) -> np.ndarray:
    """(H, W) bool: the places of a map (H, W) that are its largest, a share of all; fewer where fewer are above 0."""
    most = max(round(share * map_.size), 1)
    order = np.argsort(-map_, axis=None, kind="stable")[:most]
    region = np.zeros(map_.size, dtype=bool)
    region[order[map_.flat[order] > 0]] = True
    return region.reshape(map_.shape)


def elsewhere(region: np.ndarray, seed: int, number: int) -> np.ndarray:
    """(RANDOM, H, W) bool: the region, moved by chance; what leaves the image comes in on its other side, and some are
    mirrored. A function of the seed and of the number of the image."""
    random = np.random.default_rng(derive_seed(seed, "explain", number))
    found = []
    for _ in range(RANDOM):
        turned = region[:: random.choice([-1, 1]), :: random.choice([-1, 1])]
        found.append(np.roll(turned, (random.integers(region.shape[0]), random.integers(region.shape[1])), (0, 1)))
    return np.stack(found)


@torch.no_grad()
def hide(
    predictor: Predictor, mapper: Mapper, image: Tensor, map_: np.ndarray, name: int, fill: Tensor, share: float,
    number: int,
) -> Hidden | None:  # fmt: skip
    """What one image (C, H, W) in 0..255 loses of the answer `name`; None for a map that is 0 everywhere.

    fill: see `filling`. number: of the image, which together with the experiment's seed says where chance hides.
    """
    region = important(map_, share)
    if not region.any():
        return None
    masks = np.concatenate(
        [np.zeros_like(region)[None], region[None], elsewhere(region, predictor.experiment.seed, number)]
    )
    pixels = image[None].float().to(predictor.device)
    seen = torch.where(torch.from_numpy(masks)[:, None].to(predictor.device), fill.to(pixels), pixels)
    values = mapper.readings(predictor.pipeline.evaluate(seen)).values[:, name].double().cpu().numpy()
    return Hidden(region, float(values[0]), float(values[1]), values[2:], mapper.are_probabilities)
