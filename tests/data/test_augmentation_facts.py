"""What each augmentation does, in numbers: against torchvision, formulas and counts."""

import pytest
import torch
from augmenting import entry_of

from dltrain.config import ConfigError
from dltrain.data.augmentation import Augmentation
from dltrain.data.augmentation.color import Brightness, ColorJitter, ColorNoise, GaussianBlur, GaussianNoise, Grayscale
from dltrain.data.augmentation.geometry import AlternatingFlip, RandomCrop, RandomResizedCrop, Translate
from dltrain.data.augmentation.impl import color as kernels_color
from dltrain.data.augmentation.impl import geometry as kernels_geometry
from dltrain.data.augmentation.impl import mixing as kernels_mixing
from dltrain.data.augmentation.mixing import CutMix, Cutout, Mixup, RandomErasing
from dltrain.data.random import Draws
from dltrain.data.types import Batch, ImageShape
from dltrain.testing.augmentations import CPU, SHAPES, batch_of, context, pictures, run

# -- geometry


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_flips(name: str, axis: int):
    images = pictures(8, SHAPES["wide"])
    always = Augmentation.parse({"name": name, "probability": 1.0})
    once = run(always, images).inputs
    assert once.dtype == torch.uint8
    assert torch.equal(once, images.flip(axis))
    assert torch.equal(run(always, once).inputs, images)
    assert torch.equal(run(Augmentation.parse({"name": name, "probability": 0.0}), images).inputs, images)
    many = run(entry_of(name), pictures(1, SHAPES["wide"]).expand(2000, -1, -1, -1)).inputs
    flipped = (many != many[0]).flatten(1).any(1).float().mean()
    assert abs(min(flipped, 1 - flipped) - 0.5) < 0.05


def test_alternating_flip_turns_every_example_every_other_epoch():
    images = pictures(1, SHAPES["rgb"]).expand(4000, -1, -1, -1)
    entry = AlternatingFlip()
    epochs = [(run(entry, images, epoch).inputs != images).flatten(1).any(1) for epoch in range(4)]
    assert (
        torch.equal(epochs[0], ~epochs[1]) and torch.equal(epochs[0], epochs[2]) and torch.equal(epochs[1], epochs[3])
    )
    assert abs(epochs[0].float().mean() - 0.5) < 0.03
    agree = (epochs[0][1:] == epochs[0][:-1]).float().mean()
    assert abs(agree - 0.5) < 0.03, "neighbours in the data set must not share their first side"
    reseeded = entry.build(context(SHAPES["rgb"], seed=7))(batch_of(images), Draws(0, 0, CPU)).inputs
    assert abs(((reseeded != images).flatten(1).any(1) == epochs[0]).float().mean() - 0.5) < 0.03


@pytest.mark.parametrize("fill", ["zero", "reflect"])
def test_random_crop_takes_every_window_of_the_padded_image(fill: str):
    image = pictures(1, ImageShape(2, 6, 8)) + 1  # no black inside
    result = run(RandomCrop(padding=2, fill=fill), image.expand(3000, -1, -1, -1)).inputs
    mode = "constant" if fill == "zero" else "reflect"
    padded = torch.nn.functional.pad(image.float(), (2, 2, 2, 2), mode=mode).to(torch.uint8)[0]
    windows = {padded[:, y : y + 6, x : x + 8].numpy().tobytes(): 0 for y in range(5) for x in range(5)}
    for crop in result:
        windows[crop.numpy().tobytes()] += 1  # KeyError: not a window
    assert len(windows) == 25 and min(windows.values()) > 3000 / 25 * 0.6


def test_random_crop_refuses_to_reflect_more_than_the_image():
    with pytest.raises(ConfigError, match="cannot reflect 4 pixels of images of 1x4x9"):
        RandomCrop(fill="reflect").build(context(ImageShape(1, 4, 9)))
    assert torch.equal(run(RandomCrop(padding=0), pictures(4, SHAPES["rgb"])).inputs, pictures(4, SHAPES["rgb"]))


def test_translate_shifts_by_whole_pixels_within_its_share():
    image = torch.zeros(1, 1, 21, 41, dtype=torch.uint8)
    image[0, 0, 10, 20] = 255
    result = run(Translate(share=0.2), image.expand(1000, -1, -1, -1)).inputs
    assert torch.equal(result.flatten(1).sum(1, dtype=torch.int64), torch.full((1000,), 255))
    place = result.flatten(1).argmax(1)
    down, right = place // 41 - 10, place % 41 - 20
    assert (down.min(), down.max(), right.min(), right.max()) == (-4, 4, -8, 8)
    assert torch.equal(run(Translate(share=0.0), image).inputs, image)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_rotation_by_quarter_turns_is_rot90(mode: str):
    images = pictures(3, SHAPES["rgb"]).float()
    for quarter in range(-1, 3):
        turned = kernels_geometry.affine(images, kernels_geometry.turned(torch.full((3,), 90.0 * quarter)), mode)
        torch.testing.assert_close(turned, images.rot90(quarter, (2, 3)), rtol=0, atol=1e-2)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_rotation_and_scale_agree_with_torchvision(mode: str):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as reference

    images = pictures(4, SHAPES["wide"])
    angles, factors = torch.tensor([-20.0, 7.0, 33.0, 111.0]), torch.tensor([0.9, 1.1, 1.0, 1.3])
    ours = kernels_geometry.affine(images, kernels_geometry.turned(angles, factors), mode)
    for i in range(4):
        theirs = reference.affine(
            images[i].float(), -angles[i].item(), [0, 0], factors[i].item(), [0.0, 0.0], InterpolationMode(mode)
        )
        difference = (ours[i] - theirs).abs()
        assert (difference < 0.1).float().mean() > 0.995


@pytest.mark.parametrize("entry", [{"name": "rotation", "degrees": 0}, {"name": "scale", "low": 1, "high": 1}])
def test_zero_strength_moves_nothing(entry: dict):
    images = pictures(4, SHAPES["wide"])
    torch.testing.assert_close(run(Augmentation.parse(entry), images).inputs, images.float(), rtol=0, atol=1e-2)


@pytest.mark.parametrize("size", [(8, 8), (16, 12), (40, 30)])
def test_resized_crop_agrees_with_torchvision(size: tuple[int, int]):
    from torchvision.transforms.v2 import functional as reference

    images = pictures(4, ImageShape(3, 24, 32)).float()
    boxes = torch.tensor([[0, 0, 24, 32], [3, 5, 10, 7], [20, 30, 4, 2], [1, 0, 23, 9]])
    theirs = torch.stack(
        [reference.resized_crop(i, *b.tolist(), list(size), antialias=True) for i, b in zip(images, boxes)]
    )
    spans = tuple(boxes.T.float())
    by_matrices = kernels_geometry.resized_by_matrices(images, spans, size)  # as on a GPU
    torch.testing.assert_close(by_matrices, theirs, rtol=0, atol=1e-2)
    torch.testing.assert_close(kernels_geometry.resized_crop(images, *spans, size), theirs, rtol=0, atol=1e-3)
    whole = images.byte()
    for layout in (torch.contiguous_format, torch.channels_last):
        cut = kernels_geometry.resized_crop(whole.contiguous(memory_format=layout), *spans, size)
        assert cut.dtype == torch.uint8 and cut.is_contiguous(memory_format=layout)
        exact = kernels_geometry.resized_by_matrices(whole.float(), spans, size)
        torch.testing.assert_close(cut.float(), exact, rtol=0, atol=1.01)  # rounded after rows and after columns


def test_boxes_are_distributed_as_torchvisions():
    from torchvision.transforms.v2 import RandomResizedCrop as Reference

    count, image = 4000, torch.zeros(1, 40, 60)
    ones = torch.ones(count)
    height, width, _ = kernels_geometry.draw_boxes(Draws(0, 0, CPU), ones * 40, ones * 60, (0.08, 1.0), (3 / 4, 4 / 3))
    reference = Reference(40)
    torch.manual_seed(0)
    drawn = [reference.make_params([image]) for _ in range(count)]
    expected = torch.tensor([[float(d["height"]), float(d["width"])] for d in drawn])
    ours = torch.stack([height, width], 1)
    torch.testing.assert_close(ours.mean(0), expected.mean(0), rtol=0.03, atol=0)
    torch.testing.assert_close(ours.std(0), expected.std(0), rtol=0.06, atol=0)


def test_random_resized_crop_reads_only_the_valid_part_and_gives_the_models_size():
    canvas = torch.full((16, 3, 40, 50), 255, dtype=torch.uint8)
    extents = torch.stack([torch.arange(16) + 20, torch.arange(16) * 2 + 12], 1)
    for image, (height, width) in zip(canvas, extents):
        image[:, :height, :width] = 7
    transform = RandomResizedCrop(scale=[0.3, 1.0]).build(context(ImageShape(3, 14, 18)))
    result = transform(Batch(canvas, *[torch.zeros(16, dtype=torch.int64)] * 3, extents=extents), Draws(0, 0, CPU))
    assert result.extents is None and result.inputs.shape == (16, 3, 14, 18)
    torch.testing.assert_close(result.inputs, torch.full((16, 3, 14, 18), 7, dtype=torch.uint8))


def test_random_resized_crop_of_everything_is_the_identity_and_falls_back_to_the_centre():
    whole = RandomResizedCrop(scale=[1.0, 1.0], ratio=[1.0, 1.0])
    images = pictures(4, SHAPES["rgb"])
    assert torch.equal(run(whole, images).inputs, images)
    wide = pictures(4, ImageShape(1, 8, 24))  # no square has the area of a wide image
    crop = whole.build(context(ImageShape(1, 8, 8)))(batch_of(wide), Draws(0, 0, CPU)).inputs
    assert torch.equal(crop, wide[:, :, :, 8:16])


# -- colour


def test_adjustments_agree_with_torchvision():
    from torchvision.transforms.v2 import functional as reference

    for shape in (SHAPES["wide"], SHAPES["grey"]):
        images = pictures(5, shape)
        factors = torch.tensor([0.0, 0.6, 1.0, 1.5, 2.5])
        turns = torch.tensor([-0.5, -0.1, 0.0, 0.1, 0.37])
        for name, values in (("brightness", factors), ("contrast", factors), ("saturation", factors), ("hue", turns)):
            ours = getattr(kernels_color, name)(images, values)
            adjust = getattr(reference, f"adjust_{name}")
            theirs = torch.stack([adjust(i / 255, v.item()) * 255 for i, v in zip(images, values)])
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02, msg=lambda text, name=name: f"{name}: {text}")


def test_brightness_clips():
    images = pictures(4, SHAPES["rgb"])
    bright = kernels_color.brightness(images, torch.full((4,), 1.5))
    assert torch.equal(bright, (images * 1.5).clamp(0, 255))


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "brightness", "strength": 0}, {"name": "contrast", "strength": 0}, {"name": "hue", "strength": 0},
        {"name": "saturation", "strength": 0}, {"name": "grayscale", "probability": 0},
        {"name": "gaussian_noise", "std": 0},
        {"name": "color_noise", "strength": 0}, {"name": "gaussian_blur", "probability": 0},
        {"name": "color_jitter", "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0},
        {"name": "random_erasing", "probability": 0}, {"name": "cutout", "probability": 0},
        {"name": "mixup", "probability": 0}, {"name": "cutmix", "probability": 0},
    ],
    ids=lambda entry: entry["name"],
)  # fmt: skip
def test_zero_strength_changes_nothing(entry: dict):
    images = pictures(4, SHAPES["wide"])
    parsed = Augmentation.parse(entry)
    images = images if parsed.stage == "pixels" else images.float()
    torch.testing.assert_close(run(parsed, images).inputs.float(), images.float(), rtol=0, atol=1e-3)


def test_color_jitter_draws_its_order_and_its_factors():
    images = torch.full((4000, 3, 1, 1), 100, dtype=torch.uint8)
    bright = run(ColorJitter(contrast=0, saturation=0, hue=0), images).inputs[:, 0, 0, 0] / 100
    assert abs(bright.min() - 0.6) < 0.01 and abs(bright.max() - 1.4) < 0.01 and abs(bright.mean() - 1) < 0.02
    strong = run(Brightness(strength=3.0), images).inputs[:, 0, 0, 0] / 100
    assert strong.min() >= 0 and abs(strong.median() - 2.0) < 0.1, "the factor is uniform in 0..4"


@pytest.mark.parametrize("name", ["hue", "saturation", "color_jitter", "grayscale", "rand_augment", "trivial_augment"])
def test_colour_needs_one_or_three_channels(name: str):
    with pytest.raises(ConfigError, match=f"`{name}` needs grey or RGB images, but these have 4 channels"):
        entry_of(name).build(context(ImageShape(4, 8, 8)))


def test_grayscale_makes_channels_equal():
    result = run(Grayscale(probability=1.0), pictures(4, SHAPES["rgb"])).inputs
    assert torch.equal(result[:, 0], result[:, 1]) and torch.equal(result[:, 0], result[:, 2])


def test_color_noise_shifts_whole_images_along_the_colour_axes():
    generator = torch.Generator().manual_seed(0)
    root = torch.rand(3, 3, generator=generator)
    covariance = root @ root.T * 0.1
    images = torch.zeros(20000, 3, 2, 2, dtype=torch.uint8)
    shifted = run(ColorNoise(strength=0.5), images, covariance=covariance).inputs / 255
    assert torch.equal(shifted, shifted[:, :, :1, :1].expand_as(shifted)), "the same for all pixels"
    values, vectors = torch.linalg.eigh(covariance.double())
    expected = 0.25 * vectors @ torch.diag(values**2) @ vectors.T
    measured = torch.cov(shifted[:, :, 0, 0].double().T)
    torch.testing.assert_close(measured, expected, rtol=0, atol=0.03 * expected.max().item())


def test_gaussian_noise_has_its_deviation():
    images = torch.full((50, 1, 32, 32), 128, dtype=torch.uint8)
    noise = run(GaussianNoise(std=0.05), images).inputs - 128
    assert abs(noise.std() - 0.05 * 255) < 0.1 and abs(noise.mean()) < 0.2


def test_gaussian_blur_agrees_with_torchvision_away_from_the_border():
    from torchvision.transforms.v2 import functional as reference

    images = pictures(2, ImageShape(3, 32, 32))
    ours = run(GaussianBlur(probability=1.0, low=1.5, high=1.5), images).inputs
    theirs = reference.gaussian_blur(images.float(), [15, 15], [1.5, 1.5])
    torch.testing.assert_close(ours[:, :, 8:-8, 8:-8], theirs[:, :, 8:-8, 8:-8], rtol=0, atol=0.01)


# -- erasing and mixing


def test_cutout_erases_a_square_that_may_cross_the_border():
    result = run(Cutout(size=16), torch.ones(2000, 3, 32, 32)).inputs
    erased = (result == 0).flatten(1).sum(1) // 3
    assert erased.max() == 256 and erased.min() <= 81
    assert set(result.unique().tolist()) == {0.0, 1.0}
    inside = (result[:, :, 7, 7] == 0).all(1).float().mean()
    assert abs(inside - 1 / 4 * (15.5 / 16) ** 2) < 0.05
    boxes = kernels_mixing.boxes(torch.ones(1, 3, 32, 32), *torch.tensor([[8], [8], [16], [16]]))
    assert boxes.sum() == 256 and boxes[0, 0, 8:24, 8:24].all()


def test_random_erasing_sets_a_rectangle_of_the_given_area_to_its_value():
    entry = RandomErasing(probability=0.5, area=[0.05, 0.2], ratio=[0.5, 2.0], value=3.0)
    result = run(entry, torch.ones(2000, 2, 40, 40)).inputs
    assert set(result.unique().tolist()) == {1.0, 3.0}
    masks = result[:, 0] == 3.0
    assert torch.equal(masks, result[:, 1] == 3.0)
    area, height, width = masks.flatten(1).sum(1), masks.any(2).sum(1), masks.any(1).sum(1)
    chosen = area > 0
    assert abs(chosen.float().mean() - 0.5) < 0.04
    assert torch.equal(area, height * width), "a full rectangle"
    share, ratio = area[chosen] / 1600, height[chosen] / width[chosen]
    assert 0.04 < share.min() < 0.06 and 0.18 < share.max() < 0.22 and abs(share.mean() - 0.125) < 0.01
    assert 0.4 < ratio.min() < 0.6 and 1.7 < ratio.max() < 2.3 and abs(ratio.log().mean()) < 0.05


def test_mixup_weights_images_and_targets_alike():
    images = torch.zeros(10, 1, 2, 2) + torch.arange(10.0).view(-1, 1, 1, 1) ** 2
    result = run(Mixup(alpha=1.0), images)
    squares = torch.arange(10.0) ** 2
    torch.testing.assert_close(result.inputs[:, 0, 0, 0], result.targets @ squares)
    torch.testing.assert_close(result.targets.sum(1), torch.ones(10))
    assert ((result.targets > 0).sum(1) <= 2).all()
    assert (result.targets.diagonal() > 0).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_shares_follow_the_beta_distribution(alpha: float):
    own = run(Mixup(alpha=alpha), torch.zeros(20000, 1, 1, 1)).targets
    share = own[torch.arange(20000), torch.arange(20000) % 10]
    assert abs(share.mean() - 0.5) < 0.01
    assert abs(share.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


def test_cutmix_weights_are_the_shares_of_pixels():
    images = torch.arange(10.0).view(-1, 1, 1, 1).expand(10, 3, 16, 24).contiguous()
    for step in range(5):
        result = run(CutMix(), images, step)
        shares = torch.stack([(result.inputs[:, 0] == k).float().mean((1, 2)) for k in range(10)], 1)
        torch.testing.assert_close(result.targets, shares)
        pasted = result.inputs[:, 0] != images[:, 0]
        assert torch.equal(pasted.sum((1, 2)), pasted.any(2).sum(1) * pasted.any(1).sum(1)), "a full rectangle"


def test_mixing_twice_mixes_the_targets_again():
    once = run(Mixup(alpha=1.0), torch.rand(8, 1, 4, 4))
    twice = Mixup(alpha=1.0).build(context(SHAPES["grey"]))(once, Draws(0, 9, CPU))
    torch.testing.assert_close(twice.targets.sum(1), torch.ones(8))
    assert (twice.targets > 0).sum(1).max() > 2
