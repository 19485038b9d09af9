"""One contract for every augmentation of the catalogue, and the pipeline that runs them."""

import subprocess
import sys

import pytest
import torch
from augmenting import STRONG
from torch import Tensor

from dltrain.data.augmentation.base import Augmentation, check_order
from dltrain.data.loading.pipeline import Pipeline, build_pipeline
from dltrain.data.random import Draws
from dltrain.data.types import ImageShape
from dltrain.testing import AugmentationContract
from dltrain.testing.augmentations import SHAPES, batch_of, context, pictures

# -- the contract, for every entry


class TestAugmentations(AugmentationContract):
    names = Augmentation.all_names()
    options = STRONG
    only_colors = ("saturation", "hue", "grayscale")
    by_epoch = ("alternating_flip",)
    any_values = ("color_noise",)
    rounds_twice = ("random_resized_crop",)  # after rows and after columns, as torchvision does

    @pytest.mark.gpu
    def test_never_waits_for_a_gpu(self, name: str) -> None:
        super().test_never_waits_for_a_gpu(name)


def test_the_catalogue_loads_without_torch():
    code = "import sys, dltrain.data.augmentation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- the pipeline


class Halves:
    """A stand-in for the scaling."""

    def apply(self, images: Tensor) -> Tensor:
        return images.float() / 127.5 - 1


def pipeline(entries: list, shape: ImageShape = SHAPES["rgb"], seed: int = 0) -> Pipeline:
    return build_pipeline([Augmentation.parse(e) for e in entries], context(shape, seed), Halves())


def test_pipeline_gives_scaled_inputs_and_labels():
    batch = batch_of(pictures(8, SHAPES["rgb"]))
    inputs, targets = pipeline(["random_crop", "horizontal_flip", "cutout"]).train(batch, 0)
    assert inputs.dtype == torch.float32 and inputs.shape == (8, 3, 16, 16)
    assert targets is batch.targets
    plain, _ = pipeline([]).train(batch, 0)
    assert torch.equal(plain, Halves().apply(batch.inputs))
    assert torch.equal(pipeline(["mixup", "cutmix"]).evaluate(batch.inputs), plain)


def test_pipeline_gives_soft_targets_when_it_mixes():
    inputs, targets = pipeline(["horizontal_flip", "mixup"]).train(batch_of(pictures(8, SHAPES["rgb"])), 0)
    assert inputs.shape == (8, 3, 16, 16) and targets.shape == (8, 10)


def test_joined_moves_give_the_same_bits_as_moves_in_turn():
    entries = [
        "random_crop",
        "horizontal_flip",
        "translate",
        "vertical_flip",
        {"name": "random_crop", "fill": "reflect"},
        "alternating_flip",
    ]
    batch = batch_of(pictures(16, SHAPES["wide"]))
    joined = pipeline(entries, SHAPES["wide"])
    assert len(joined.pixels) == 1
    inputs, _ = joined.train(batch, 3)
    for part in joined.pixels[0].parts:
        batch = part[0](batch, Draws(part[1], 3, batch.inputs.device))
    assert torch.equal(inputs, Halves().apply(batch.inputs))


def test_channels_last_images_give_the_same_result():
    batch = batch_of(pictures(8, SHAPES["wide"]))
    entries = ["random_crop", "horizontal_flip", "rotation", "color_jitter", "rand_augment", "cutout", "cutmix"]
    dense, _ = pipeline(entries, SHAPES["wide"]).train(batch, 0)
    other = batch.with_(inputs=batch.inputs.contiguous(memory_format=torch.channels_last))
    last, _ = pipeline(entries, SHAPES["wide"]).train(other, 0)
    assert torch.equal(dense, last)


def test_another_augmentation_does_not_change_the_draws_of_the_rest():
    batch = batch_of(pictures(16, SHAPES["rgb"]))
    alone, _ = pipeline(["horizontal_flip"]).train(batch, 0)
    invisible = {"name": "random_crop", "padding": 0}
    for entries in (["horizontal_flip", invisible], [invisible, "horizontal_flip"]):
        assert torch.equal(pipeline(entries).train(batch, 0)[0], alone)
    assert not torch.equal(
        pipeline(["horizontal_flip", "horizontal_flip"]).train(batch, 0)[0], Halves().apply(batch.inputs)
    )


def test_mixup_and_cutmix_share_the_steps():
    batch = batch_of(torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(10, 3, 16, 16).contiguous() * 20)
    both = pipeline(["mixup", "cutmix"])
    pure = torch.isin(torch.cat([both.train(batch, step)[0] for step in range(100)]), Halves().apply(batch.inputs))
    cut = pure.view(100, -1).all(1).float().mean()
    assert 0.35 < cut < 0.65


def test_check_order_names_what_comes_too_late():
    order = [
        Augmentation.parse(name) for name in ("random_crop", "cutout", "horizontal_flip", "mixup", "random_erasing")
    ]
    found = check_order(order)
    assert [index for index, _ in found] == [2, 4]
    assert found[0][1] == (
        "`horizontal_flip` must come before `cutout`: it works before scaling, `cutout` after scaling"
    )
    assert "`random_erasing` must come before `mixup`" in found[1][1]
    assert check_order([Augmentation.parse(name) for name in ("random_crop", "cutout", "mixup", "cutmix")]) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "rand_augment", "magnitude": 31}, "`magnitude` must be less than `bins` \\(31\\), but is 31"),
        ({"name": "random_resized_crop", "scale": [1.0, 0.1]}, "the lower one first"),
        ({"name": "random_resized_crop", "scale": [0.5, 1.5]}, "must not exceed the whole image"),
        ({"name": "random_erasing", "area": [0.1]}, "must be two numbers"),
        ({"name": "scale", "low": 1.2}, "`high` must not be less than `low` \\(1.2\\), but is 1.1"),
        ({"name": "gaussian_blur", "low": 3.0}, "`high` must not be less than `low` \\(3\\), but is 2"),
    ],
)
def test_options_that_do_not_fit_are_refused(entry: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Augmentation.parse(entry)
