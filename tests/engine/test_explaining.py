"""Which layer of a network still knows places, which region a map calls important, and where chance hides instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dltrain.data.types import ImageShape
from dltrain.engine.explaining.hiding import RANDOM, Hidden, elsewhere, important
from dltrain.engine.explaining.places import Places, find_places
from dltrain.errors import RunError
from dltrain.models import Model
from dltrain.tasks.outputs import Logits


def first(outputs: Tensor) -> Tensor:
    return outputs[:, 0].sum()


def found(network: nn.Module, height: int, width: int) -> Places:
    return find_places(network.eval(), torch.randn(2, 3, height, width), first)


def of_catalogue(model: Any, height: int, width: int) -> Places:
    torch.manual_seed(0)
    choice = Model.parse(model)
    assert isinstance(choice, Model)
    return found(choice.make(ImageShape(3, height, width), Logits(4)), height, width)


@pytest.mark.parametrize(
    ("model", "height", "width", "layer", "size"),
    [
        ({"name": "convnet", "widths": [4, 8]}, 16, 24, None, (4, 6)),
        ("timm/test_resnet", 64, 64, None, (4, 4)),
        ("timm/test_vit", 160, 160, "norm1", (10, 10)),
        ("timm/deit_tiny_distilled_patch16_224", 64, 96, "blocks.11.norm1", (4, 6)),
        ("timm/swin_tiny_patch4_window7_224", 128, 128, "norm", (4, 4)),
    ],
)
def test_the_last_layer_with_places(
    model: Any, height: int, width: int, layer: str | None, size: tuple[int, int]
) -> None:
    places = of_catalogue(model, height, width)
    assert places.size == size, places
    assert layer is None or places.name.endswith(layer), places


class Tokens(nn.Module):
    """Patches of 2x2 pixels as tokens behind a class token that is all the answer sees after one mixing."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 2, 2)
        self.mixed, self.after = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        tokens = self.mixed(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        mean = tokens.mean(1, keepdim=True).expand_as(tokens)
        return self.after(torch.cat([mean[:, :1], tokens[:, 1:]], 1))[:, 0]


def test_a_layer_counts_only_if_the_answer_depends_on_its_places() -> None:
    torch.manual_seed(0)
    network = Tokens()
    places = found(network, 8, 12)
    assert places.name == "mixed" and places.size == (4, 6)
    tokens = torch.arange(25.0)[None, :, None].expand(2, 25, 5)
    maps = places.arrange(tokens)
    assert maps.shape == (2, 5, 4, 6)
    assert torch.equal(maps[1, 3], torch.arange(1.0, 25.0).reshape(4, 6)), "without the class token, row by row"


def test_few_places_are_taken_only_where_there_are_no_more() -> None:
    body = [nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.MaxPool2d(2)]
    assert found(nn.Sequential(*body, nn.Flatten(), nn.Linear(16, 2)), 8, 8).name == "1"
    small = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(16, 2))
    assert found(small, 8, 8).size == (2, 2)


def test_without_places_the_reason_is_said() -> None:
    with pytest.raises(RunError, match="keeps places of the image"):
        found(nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2)), 8, 8)
    with pytest.raises(RunError, match="no gradient comes"):
        find_places(nn.Linear(4, 2), torch.zeros(1, 3, 4, 4), lambda outputs: outputs.detach().sum())


def test_the_important_region_is_the_largest_part_of_the_map() -> None:
    map_ = np.random.default_rng(0).random((6, 10)).astype(np.float32)
    region = important(map_, 0.2)
    assert region.sum() == 12 and map_[region].min() > map_[~region].max()
    assert important(np.where(map_ > 0.95, map_, 0), 0.5).sum() == (map_ > 0.95).sum(), "nothing where the map is 0"
    assert not important(np.zeros((4, 4), np.float32), 0.5).any()


def test_a_region_counts_only_where_hiding_it_costs_something() -> None:
    region, others = np.ones((2, 2), dtype=bool), np.full(RANDOM, 0.7)
    assert Hidden(region, 0.5, 0.4, others, True).beyond_chance
    assert not Hidden(region, 0.5, 0.8, others, True).beyond_chance, "one random region less"
    raised = Hidden(region, 0.5, 0.6, others, True)
    assert raised.beats == RANDOM and not raised.beyond_chance, "the probability became larger"


def test_chance_hides_regions_of_the_same_shape() -> None:
    region = np.zeros((8, 12), dtype=bool)
    region[1:4, 2:4] = region[3, 2:9] = True
    masks = elsewhere(region, 0, 3)
    assert masks.shape == (RANDOM, 8, 12) and (masks.sum((1, 2)) == region.sum()).all()
    assert np.array_equal(masks, elsewhere(region, 0, 3)) and len({mask.tobytes() for mask in masks}) > RANDOM // 2
    assert not np.array_equal(masks, elsewhere(region, 0, 4)) and not np.array_equal(masks, elsewhere(region, 1, 3))
