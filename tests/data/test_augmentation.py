"""One contract for every augmentation of the catalogue, and the pipeline that runs them."""

import subprocess
import sys

import pytest
import torch
from augmenting import SHAPES, batch_of, context, entry_of, pictures, run
from torch import Tensor

from dltrain.data.augmentation.base import Augmentation, check_order
from dltrain.data.loading.pipeline import Pipeline, build_pipeline
from dltrain.data.random import Draws
from dltrain.data.types import Batch, ImageShape

# -- the contract, for every entry

COLORS = {"saturation", "hue", "grayscale"}
"""What does nothing to grey images."""
EVERY = pytest.mark.parametrize("name", Augmentation.all_names())
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def starting_images(name: str, shape: ImageShape, count: int = 8) -> Tensor:
    images = pictures(count, shape)
    return images if entry_of(name).stage == "pixels" else images / 64 - 2


@EVERY
@EVERY_SHAPE
def test_keeps_shape_and_input_and_is_a_function_of_seed_and_step(name: str, shape: ImageShape):
    entry, images = entry_of(name), starting_images(name, shape)
    before = images.clone()
    first, again, later, other = (run(entry, images, step, seed) for step, seed in ((3, 0), (3, 0), (4, 0), (3, 1)))
    assert torch.equal(images, before)
    assert first.images.shape == images.shape
    assert first.images.dtype in (images.dtype, torch.float32)
    assert torch.equal(first.images, again.images)
    if not (name in COLORS and shape.channels == 1):
        assert not torch.equal(first.images, later.images)
        if name != "alternating_flip":  # a function of the experiment's seed and the epoch
            assert not torch.equal(first.images, other.images)
    if entry.stage == "pixels":
        assert first.images.min() >= 0 or name == "color_noise"
        assert first.images.max() <= 255.01 or name == "color_noise"
    if entry.needs_soft_targets:
        assert first.targets.shape == (8, 10) and first.targets.dtype == torch.float32
        torch.testing.assert_close(first.targets.sum(1), torch.ones(8))
    else:
        assert first.targets is None
    assert torch.equal(first.labels, torch.arange(8))


@EVERY
def test_differs_between_examples(name: str):
    images = starting_images(name, SHAPES["rgb"], 1).expand(32, -1, -1, -1)
    if entry_of(name).stage == "batch":
        images = images + torch.arange(32).view(-1, 1, 1, 1)
    result = run(entry_of(name), images).images
    assert len({image.numpy().tobytes() for image in result}) >= 2


@EVERY
def test_an_example_does_not_depend_on_the_others_in_its_batch(name: str):
    if entry_of(name).stage == "batch":
        pytest.skip("mixes examples")
    images = starting_images(name, SHAPES["wide"])
    others = images.flip(0).clone()
    others[2] = images[2]
    for step in range(4):
        torch.testing.assert_close(
            run(entry_of(name), images, step).images[2], run(entry_of(name), others, step).images[2], rtol=0, atol=1e-4
        )


@EVERY
@EVERY_SHAPE
def test_uint8_and_float_mean_the_same(name: str, shape: ImageShape):
    if entry_of(name).stage != "pixels":
        pytest.skip("scaled images are float")
    images = pictures(8, shape)
    from_bytes, from_floats = run(entry_of(name), images).images, run(entry_of(name), images.float()).images
    rounded = name == "random_resized_crop"  # after rows and after columns, as torchvision does
    torch.testing.assert_close(from_bytes.float(), from_floats.float(), rtol=0, atol=1.01 if rounded else 1e-3)


class MetaDraws(Draws):
    """Draws without values: anything that would wait for the device raises on them."""

    def __init__(self) -> None:
        super().__init__(0, 0, torch.device("cpu"))
        self.device = torch.device("meta")

    def uniform(self, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.empty(size, device="meta")

    normal = uniform

    def integers(self, high: int, *size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int64, device="meta")


@EVERY
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_never_waits_for_the_device(name: str, dtype: torch.dtype):
    entry = entry_of(name)
    if entry.stage != "pixels" and dtype == torch.uint8:
        pytest.skip("scaled images are float")
    host = batch_of(torch.zeros(8, 3, 16, 16, dtype=dtype))
    batch = Batch(*(getattr(host, field).to("meta") for field in ("images", "labels", "indices", "epochs")))
    result = entry.build(context(SHAPES["rgb"]))(batch, MetaDraws())
    assert result.images.device.type == "meta" and result.images.shape == (8, 3, 16, 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY
def test_never_waits_for_a_gpu(name: str):
    device = torch.device("cuda")
    host = batch_of(starting_images(name, SHAPES["rgb"]))
    batch = Batch(*(getattr(host, field).to(device) for field in ("images", "labels", "indices", "epochs")))
    transform = entry_of(name).build(context(SHAPES["rgb"]))
    transform(batch, Draws(0, 0, device))  # kernels load, pinned memory is allocated
    draws = Draws(0, 1, device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = transform(batch, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.images.shape == host.images.shape


def test_the_catalogue_loads_without_torch():
    code = "import sys, dltrain.data.augmentation.catalogue; sys.exit('torch' in sys.modules)"
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
    assert targets is batch.labels
    plain, _ = pipeline([]).train(batch, 0)
    assert torch.equal(plain, Halves().apply(batch.images))
    assert torch.equal(pipeline(["mixup", "cutmix"]).evaluate(batch.images), plain)


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
        batch = part[0](batch, Draws(part[1], 3, batch.images.device))
    assert torch.equal(inputs, Halves().apply(batch.images))


def test_channels_last_images_give_the_same_result():
    batch = batch_of(pictures(8, SHAPES["wide"]))
    entries = ["random_crop", "horizontal_flip", "rotation", "color_jitter", "rand_augment", "cutout", "cutmix"]
    dense, _ = pipeline(entries, SHAPES["wide"]).train(batch, 0)
    other = batch.with_(images=batch.images.contiguous(memory_format=torch.channels_last))
    last, _ = pipeline(entries, SHAPES["wide"]).train(other, 0)
    assert torch.equal(dense, last)


def test_another_augmentation_does_not_change_the_draws_of_the_rest():
    batch = batch_of(pictures(16, SHAPES["rgb"]))
    alone, _ = pipeline(["horizontal_flip"]).train(batch, 0)
    invisible = {"name": "random_crop", "padding": 0}
    for entries in (["horizontal_flip", invisible], [invisible, "horizontal_flip"]):
        assert torch.equal(pipeline(entries).train(batch, 0)[0], alone)
    assert not torch.equal(
        pipeline(["horizontal_flip", "horizontal_flip"]).train(batch, 0)[0], Halves().apply(batch.images)
    )


def test_mixup_and_cutmix_share_the_steps():
    batch = batch_of(torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(10, 3, 16, 16).contiguous() * 20)
    both = pipeline(["mixup", "cutmix"])
    pure = torch.isin(torch.cat([both.train(batch, step)[0] for step in range(100)]), Halves().apply(batch.images))
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
